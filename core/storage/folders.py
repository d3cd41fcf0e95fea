"""A folder of files that is published as one.

    on a disk                   made next to its final path and renamed
    where a bucket is mounted   made in local scratch and copied file by file, the manifest last

gcsfuse renames no folder that has children (EMFILE, on a bucket without a hierarchical namespace), links nothing and
keeps no modes. Readers begin with the manifest, so a folder without it is no output yet.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import os
import platform
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.names import inside
from core.storage import scratches
from core.storage.drives import is_mounted_bucket
from core.storage.faults import as_storage_error
from core.storage.files import confirm, copy_tree, list_files, write_bytes

_NO_FOLDER_RENAME = {errno.EMFILE, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV}


def may_become(folder: Path, *marks: str) -> bool:
    """Whether nothing is lost if `folder` becomes a new one of a kind that is known by one of the files `marks`: it is
    not there, is empty, or is of that kind already."""
    if not folder.exists() or any(inside(folder, mark).is_file() for mark in marks):
        return True
    return folder.is_dir() and not any(folder.iterdir())


@contextmanager
def atomic_folder(out: Path, manifest: str) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block ends well, and vanishes when it does not.

    Args:
        out: the folder; what is there, left by a killed predecessor, is replaced.
        manifest: the file that readers of `out` begin with; the block must write it.

    Raises:
        StorageError: the disk is full or refuses; `out` is as it was, or holds no manifest.
    """
    with as_storage_error(out, "written"):
        if is_mounted_bucket(out):
            with scratches.temporary_folder("output") as scratch:
                made = scratch / "made"
                made.mkdir()
                yield made
                _require(inside(made, manifest))
                _copy(made, out, manifest)
            return
        with _draft(out) as made:
            yield made
            _require(inside(made, manifest))
            _rename(made, out, manifest)


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """A new folder beside `out`, locked."""
    sweep(out.parent, out.name)
    made, lock = draft(out), None
    try:
        while not made.is_dir():  # or another one has removed it before it was locked
            made.mkdir(parents=True)
            lock = _lock(made, fcntl.LOCK_EX)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def sweep(place: Path, name: str | None = None) -> None:
    """Removes what killed processes of this machine left of the output `name` that they were writing in `place`.

    Args:
        place: a folder that may be missing.
        name: of one output; None: of any.
    """
    for left in place.glob(f".{'*' if name is None else glob.escape(name)}.{_host()}-*.tmp"):
        if (lock := _lock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)


def draft(out: Path) -> Path:
    """A name that nobody has used for what becomes `out`."""
    return out.with_name(f".{out.name}.{_host()}-{uuid.uuid4().hex[:8]}.tmp")


def _host() -> str:
    """This machine in eight letters: not all file systems that machines share have locks which all of them see."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _lock(folder: Path, how: int) -> int | None:
    """The descriptor that holds it; None if another one does, or the file system has no locks."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, how)
            return descriptor
        except OSError:
            os.close(descriptor)
    return None


def _require(manifest: Path) -> None:
    if not manifest.is_file():
        raise ValueError(f"{manifest.name}: was to be written, and is not there")


def _rename(made: Path, out: Path, manifest: str) -> None:
    for path in made.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    if out.exists():
        _clear(out, manifest)
    try:
        made.replace(out)
    except OSError as error:
        if error.errno not in _NO_FOLDER_RENAME:
            raise
        _copy(made, out, manifest)
    confirm(out)


def _copy(made: Path, out: Path, manifest: str) -> None:
    """Readers find no manifest in `out` until all its other files are there."""
    last = inside(made, manifest).read_bytes()
    if out.exists():
        _clear(out, manifest)
    inside(made, manifest).unlink()
    if list_files(made):
        copy_tree(made, out)
    write_bytes(inside(out, manifest), last)


def _clear(out: Path, manifest: str) -> None:
    if not out.is_dir():
        out.unlink()
        return
    inside(out, manifest).unlink(missing_ok=True)
    shutil.rmtree(out)
