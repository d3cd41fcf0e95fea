"""Local paths and `gs://` URIs through one fsspec interface; what is published is whole or absent.

Rules: a local file is written under a temporary name, fsynced and renamed; a remote object appears when its upload
ends, and one of a mounted bucket when its file is closed. A set of files becomes visible by the manifest that is
written last with `create`, which only one writer wins.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, cast

from core import jsontext
from core.errors import UserError
from core.names import inside
from core.schemes import is_remote as is_remote
from core.storage import generations, remote, scratches
from core.storage.drives import create_exclusively, is_mounted_bucket, name_once, sync_folder, write_and_sync
from core.storage.faults import StorageError, UnconfirmedError, as_storage_error, with_retries

CHUNK = 1 << 20  # bytes


def join(uri: str | Path, *parts: str) -> str:
    """`uri` with `parts` below it, which are names of our own making; those that were read go by `inside`."""
    return inside(str(uri), "/".join(parts), links=True)


def exists(uri: str | Path) -> bool:
    """Whether a file or folder is there."""
    if not is_remote(uri):
        with as_storage_error(uri, "looked up"):
            return Path(uri).exists()
    fs, path = remote.filesystem(uri)
    try:  # not fs.exists(), which takes every fault for an answer
        return bool(with_retries(lambda: fs.info(path), uri, "looked up"))
    except FileNotFoundError:
        return False


def size(uri: str | Path) -> int:
    """The length of a file in bytes.

    Raises:
        UserError: there is no such file.
    """
    try:
        if not is_remote(uri):
            return Path(uri).stat().st_size
        fs, path = remote.filesystem(uri)
        return int(with_retries(lambda: fs.info(path), uri, "read")["size"])
    except (OSError, ValueError) as error:
        raise _unreadable(uri, error) from None


def open_read(uri: str | Path) -> IO[bytes]:
    """A binary reader.

    Raises:
        UserError: there is no such file, or it may not be read.
    """
    try:
        if not is_remote(uri):
            return Path(uri).open("rb")
        fs, path = remote.filesystem(uri)
        stream = with_retries(lambda: fs.open(path, "rb", cache_type="readahead"), uri, "read")
        return cast(IO[bytes], BufferedReader(remote.Reader(stream, str(uri)), CHUNK))
    except (OSError, ValueError) as error:
        raise _unreadable(uri, error) from None


def _unreadable(uri: str | Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or (str(error) if isinstance(error, ValueError) else type(error).__name__)
    return UserError(f"{uri}: cannot be read: {reason}")


def read_bytes(uri: str | Path, *, limit: int | None = None) -> bytes:
    """The whole content; a UserError if it is longer than `limit` bytes."""
    if is_remote(uri):
        try:
            return remote.read(uri, limit)
        except FileNotFoundError as error:
            raise _unreadable(uri, error) from None
    parts, total = [], 0
    with open_read(uri) as stream:
        try:
            while part := stream.read(CHUNK):  # read(limit + 1) would first take that much memory
                total += len(part)
                if limit is not None and total > limit:
                    raise UserError(f"{uri}: larger than {limit} bytes")
                parts.append(part)
        except OSError as error:  # a folder, a bad sector
            raise _unreadable(uri, error) from None
    return b"".join(parts)


def read_json(uri: str | Path, *, limit: int = 64 * CHUNK) -> Any:
    """The JSON value in a file."""
    return jsontext.parse(read_bytes(uri, limit=limit), str(uri))


def read_json_lines(uri: str | Path) -> list[Any]:
    """The JSON values in a file, one a line."""
    return jsontext.parse_lines(read_bytes(uri), str(uri))


def write_bytes(uri: str | Path, data: bytes) -> None:
    """Writes a file atomically, replacing what was there; makes its folder.

    Raises:
        StorageError: it cannot be written; what was there is as it was.
        UnconfirmedError: it is written, but may not survive a power cut.
    """
    if is_remote(uri):
        remote.put(uri, data)
        return
    target = Path(uri)
    with as_storage_error(uri, "written"), _draft(target) as draft:
        write_and_sync(draft, data)
        _put(draft, target)
        confirm(target)


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """Where the new content of `target` is written, in its folder, which is made: a temporary name that is gone in the
    end, or `target` itself where a bucket is mounted, whose objects appear when they are closed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    mounted = is_mounted_bucket(target)
    draft = target if mounted else unique_beside(target)
    try:
        yield draft
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if not mounted:
        draft.unlink(missing_ok=True)


def _put(draft: Path, target: Path) -> None:
    if draft != target:
        draft.replace(target)


def unique_beside(target: Path) -> Path:
    """A hidden name in the folder of `target` that nobody has used."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")


def write_json(uri: str | Path, value: object) -> None:
    """Writes indented JSON atomically."""
    write_bytes(uri, to_json(value))


def to_json(value: object) -> bytes:
    """Indented JSON."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json_lines(uri: str | Path, rows: Iterable[object]) -> None:
    """Writes JSON lines atomically."""
    write_bytes(uri, jsontext.to_lines(rows))


def create(uri: str | Path, data: bytes) -> bool:
    """Writes a file only if none of that name exists; of many writers exactly one gets True.

    Args:
        uri: the file.
        data: must differ from what any other writer would write. When the answer to an upload is lost, trying again
            finds the name taken: only the content tells who took it.
    """
    if is_remote(uri):
        return generations.replace(str(uri), data, generations.ABSENT) is not None
    target = Path(uri)
    with as_storage_error(uri, "written"):
        if is_mounted_bucket(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            return create_exclusively(target, data)
        with _draft(target) as draft:
            write_and_sync(draft, data)
            if not name_once(draft, target, data):
                return False
            confirm(target)
    return True


def confirm(target: Path) -> None:
    """Makes the name `target`, which is there by now, survive a power cut."""
    try:
        sync_folder(target.parent)
    except OSError as error:
        raise UnconfirmedError(
            f"{target}: is written, but may be lost in a power cut: the disk says {error.strerror}"
        ) from None


def list_files(uri: str | Path) -> list[str]:
    """Names of all files below a folder, relative to it, sorted; empty if there is no such folder."""
    if not is_remote(uri):
        root = Path(uri)
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    fs, root_path = remote.filesystem(uri)
    prefix = root_path.rstrip("/") + "/"
    try:
        names = with_retries(lambda: fs.find(root_path), uri, "listed")
    except FileNotFoundError:
        return []
    return sorted(name[len(prefix) :] for name in names if name.startswith(prefix))


def sizes(uri: str | Path) -> dict[str, int]:
    """Bytes of each file below a folder, by the names that `list_files` gives; empty if there is no such folder."""
    if not is_remote(uri):
        root = Path(uri)
        return {path.relative_to(root).as_posix(): path.stat().st_size for path in root.rglob("*") if path.is_file()}
    return {name: int(facts.get("size") or 0) for name, facts in remote.details(uri).items()}


def remove(uri: str | Path) -> None:
    """Removes a file or a folder with all below it; nothing happens if it is not there."""
    if not is_remote(uri):
        path = Path(uri)
        with as_storage_error(uri, "removed"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return
    fs, place = remote.filesystem(uri)
    try:
        with_retries(lambda: fs.rm(place, recursive=True), uri, "removed")
    except FileNotFoundError:
        pass


def copy_tree(source: str | Path, target: str | Path) -> None:
    """Copies all files below `source` to below `target`; either side may be remote. Each file arrives whole or not.

    Raises:
        UserError: there is nothing to copy, or a name or link leads out of `source`.
        StorageError: one side cannot be read or written.
    """
    listed = list_files(source)
    if not listed:
        raise UserError(f"{source}: no files there")
    pairs = [(inside(str(source), name), inside(str(target), name)) for name in listed]
    for old, new in pairs:  # none is copied if one is refused
        if not is_remote(new):
            _copy_to_local(old, Path(new))
        elif not is_remote(old):
            remote.upload(Path(old), new)
        else:
            with scratches.temporary_folder("copy") as folder:
                _copy_to_local(old, folder / "file")
                remote.upload(folder / "file", new)


def _copy_to_local(source: str, target: Path) -> None:
    with as_storage_error(target, "written"), _draft(target) as draft:
        with open_read(source) as stream, draft.open("wb") as sink:
            shutil.copyfileobj(stream, sink, CHUNK)
            sink.flush()
            os.fsync(sink.fileno())
        if draft.stat().st_size != size(source):
            raise StorageError(f"{source}: cannot be read: its content broke off")
        _put(draft, target)


def sha256(uri: str | Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with open_read(uri) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
