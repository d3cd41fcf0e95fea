"""Data in a zip or tar archive: unpacked into a scratch folder, by names and sizes that were checked first.

Only plain files are unpacked: no links, devices, absolute names or names with `..`. An archive that expands absurdly
is refused before the disk is full of it.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from typing import IO

from core import storage
from core.errors import UserError
from core.names import inside
from core.sources.listing import HIDDEN, is_hidden
from core.sources.summary import Tally
from core.storage import scratches
from core.storage.faults import as_storage_error

ARCHIVE = re.compile(r"\.(zip|tar|tgz|tar\.(gz|bz2|xz))$", re.I)
MAX_EXPANSION, FREE_BYTES = 200, 256 << 20  # an archive may expand that many times, or to that many bytes
MAX_FILES = 20_000_000
_DAMAGED = (OSError, EOFError, zlib.error, LZMAError, zipfile.BadZipFile, tarfile.TarError, RuntimeError,
            NotImplementedError, UnicodeDecodeError, ValueError)  # fmt: skip
NO_FILE = "no plain files (links, devices)"


def is_archive(name: str) -> bool:
    """Whether `name` ends like a zip or tar archive."""
    return ARCHIVE.search(name) is not None


@contextmanager
def unpacked(data_dir: str, tally: Tally) -> Iterator[str]:
    """The folder or file to read: `data_dir` itself, or a scratch folder with what the archive `data_dir` holds.

    Errors raised inside name files as they are in the archive: `photos.zip/cat/1.png`.

    Raises:
        UserError: the archive is damaged, a decompression bomb, or holds a name that leads elsewhere.
    """
    if not is_archive(data_dir):
        yield data_dir
        return
    if not storage.exists(data_dir):
        raise UserError(f"{data_dir}: no such archive")
    with scratches.temporary_folder("unpack") as scratch:
        folder = scratch / "data"
        folder.mkdir()
        try:
            _unpack(data_dir, folder, tally)
            yield str(_root(folder))
        except UserError as error:
            raise UserError(str(error).replace(str(_root(folder)), data_dir).replace(str(folder), data_dir)) from None


def _unpack(data_dir: str, folder: Path, tally: Tally) -> None:
    budget = _Budget(data_dir, storage.size(data_dir))
    with storage.open_read(data_dir) as stream:
        try:
            if data_dir.lower().endswith(".zip"):
                _unpack_zip(data_dir, stream, folder, budget, tally)
            else:
                _unpack_tar(data_dir, stream, folder, budget, tally)
        except UserError:
            raise
        except _DAMAGED as error:
            raise UserError(f"{data_dir}: damaged or not an archive: {error or type(error).__name__}") from None


def _unpack_zip(data_dir: str, stream: IO[bytes], folder: Path, budget: _Budget, tally: Tally) -> None:
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            kind = info.external_attr >> 16 & 0o170000  # as Unix has it; 0 where the archive does not say
            if (target := _target(data_dir, info.filename, kind in (0, 0o100000), folder, tally)) is not None:
                with archive.open(info) as content:
                    budget.copy(content, target)


def _unpack_tar(data_dir: str, stream: IO[bytes], folder: Path, budget: _Budget, tally: Tally) -> None:
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        for info in archive:
            if info.isdir():
                continue
            target = _target(data_dir, info.name, info.isfile() and not info.issparse(), folder, tally)
            if target is not None and (content := archive.extractfile(info)) is not None:
                with content:
                    budget.copy(content, target)


def _target(data_dir: str, name: str, plain: bool, folder: Path, tally: Tally) -> Path | None:
    """Where a member goes; None if it is left out."""
    name = name.removeprefix("./")
    target = inside(folder, name)
    if is_hidden(name) or not plain:
        tally.skip(name, HIDDEN if plain else NO_FILE)
        return None
    if target.exists():
        raise UserError(f"{data_dir}: holds {name!r} twice")
    return target


class _Budget:
    """How much an archive of `size` bytes may still expand to."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self.bytes, self.files = max(FREE_BYTES, MAX_EXPANSION * size), MAX_FILES

    def copy(self, content: IO[bytes], target: Path) -> None:
        self.files -= 1
        with as_storage_error(target, "written"):
            target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as sink:
            while chunk := content.read(storage.CHUNK):
                self.bytes -= len(chunk)
                if self.bytes < 0 or self.files < 0:
                    raise UserError(
                        f"{self.name}: {self.size} bytes expand more than {MAX_EXPANSION}-fold; refused as a"
                        " decompression bomb"
                    )
                with as_storage_error(target, "written"):
                    sink.write(chunk)


def _root(folder: Path) -> Path:
    """`folder`, or the only folder in it: archives are often made of one folder, named like them."""
    entries = list(folder.iterdir()) if folder.is_dir() else []
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder
