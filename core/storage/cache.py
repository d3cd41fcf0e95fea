"""Files of remote storage on this machine's disk: a bounded number of bytes, shared by its processes.

A file is named by its SHA-256, fetched once however many processes ask for it, and there only when its content was
verified. What was not opened for the longest time is removed first; a process that reads a removed file goes on
reading it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from core.errors import UserError
from core.names import inside
from core.storage import files
from core.storage.faults import as_storage_error

FOLDER, SIZE = "TEXTDIFFUSION_CACHE", "TEXTDIFFUSION_CACHE_GB"
_LOCK, _PART = ".lock", ".part"


def downloads() -> Path:
    """The folder of what is fetched once and kept: TEXTDIFFUSION_CACHE, or ~/.cache/textdiffusion."""
    return Path(os.environ.get(FOLDER) or Path.home() / ".cache" / "textdiffusion")


@dataclass(frozen=True)
class FileCache:
    """Up to `limit` bytes of files in `folder`."""

    folder: Path
    limit: int

    @classmethod
    def own(cls, name: str, least: int) -> FileCache:
        """The cache `name` of this machine's user: of TEXTDIFFUSION_CACHE_GB, or half of what the disk has free for it.

        Args:
            name: of its folder below `downloads()`.
            least: bytes without which it would fetch the same files again and again.

        Raises:
            UserError: it would be smaller, or the setting is no number.
            StorageError: the disk refuses.
        """
        folder = inside(downloads(), name)
        with as_storage_error(folder, "made"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            free = shutil.disk_usage(folder).free
        cache = cls(folder, 0)
        limit = (free + sum(size for _, size, _ in cache._kept())) // 2
        if text := os.environ.get(SIZE):
            try:
                limit = int(float(text) * 1e9)
            except (ValueError, OverflowError):
                raise UserError(f"{SIZE}: found {text!r}; expected gigabytes, such as 50") from None
        if limit < least:
            raise UserError(
                f"{SIZE}: {limit / 1e9:.3g} GB in {folder} are too few; {least / 1e9:.3g} are needed: free or mount a"
                f" larger disk ({FOLDER}), or prepare the data with smaller shards (data.shards.mb)"
            )
        return cls(folder, limit)

    def open(self, uri: str, sha256: str, size: int) -> IO[bytes]:
        """A reader of the file `uri`, which has `size` bytes and that SHA-256; fetched if it is not here.

        Raises:
            UserError: it is missing, or not what was written.
            StorageError: storage or disk refuses.
        """
        kept = inside(self.folder, sha256)
        while True:
            with contextlib.suppress(FileNotFoundError):
                stream = kept.open("rb")
                if os.fstat(stream.fileno()).st_size == size:
                    with contextlib.suppress(OSError):
                        os.utime(kept)  # opened last
                    return stream
                stream.close()
            self.fetch(uri, sha256, size)

    def fetch(self, uri: str, sha256: str, size: int, *, wait: bool = True) -> None:
        """Makes the file be here, unless it is removed again: of several processes one fetches it, the others wait, or
        leave it to that one.

        Raises:
            UserError, StorageError: as `open` does.
        """
        kept, part = inside(self.folder, sha256), inside(self.folder, f"{sha256}{_PART}")
        with as_storage_error(self.folder, "written"), self._locked(sha256[:2], wait=wait) as mine:
            if not mine:
                return
            if kept.is_file() and kept.stat().st_size == size:
                os.utime(kept)  # it will be opened
                return
            try:
                with self._reserved(part, size) as sink:
                    copied = _copied(uri, sink, size)
                if copied != sha256:
                    raise UserError(f"{uri}: its SHA-256 is not the one it was written with; run prepare-data again")
                # While room is made no file changes its name: one that is listed by neither would not be counted.
                # A smaller cache of another process may have removed it.
                with self._locked("room"), contextlib.suppress(FileNotFoundError):
                    part.replace(kept)
            finally:
                part.unlink(missing_ok=True)

    def _reserved(self, part: Path, size: int) -> IO[bytes]:
        """Removes what was not opened for the longest time until `part` has room, and takes that. Where many fetch, it
        may be removed in turn: what is open is written on, and asked for again."""
        if size > self.limit:
            raise UserError(f"{SIZE}: {self.limit / 1e9:.3g} GB are less than one file of {size / 1e9:.3g} GB")
        with self._locked("room"):
            part.unlink(missing_ok=True)
            kept = sorted(self._kept())
            used = sum(bytes for _, bytes, _ in kept)
            for _, bytes, path in kept:
                if used + size <= self.limit:
                    break
                path.unlink(missing_ok=True)
                used -= bytes
            stream = part.open("wb")
            stream.truncate(size)
            return stream

    def _kept(self) -> Iterator[tuple[int, int, Path]]:
        """When each file was last opened, its bytes, and the file; those that are being fetched too."""
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.suffix != _LOCK:
                    facts = path.stat()
                    yield facts.st_mtime_ns, facts.st_size, path

    @contextlib.contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Whether the lock is held: it is, unless another one has it and this one does not wait."""
        descriptor = os.open(inside(self.folder, f"{name}{_LOCK}"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            held = True
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                held = False
            except OSError:  # a file system without locks: a file may be fetched twice
                held = True
            yield held
        finally:
            os.close(descriptor)


def _copied(uri: str, sink: IO[bytes], size: int) -> str:
    """Copies up to `size` bytes of `uri` to `sink`; their SHA-256."""
    digest, left = hashlib.sha256(), size
    with files.open_read(uri) as source:
        while chunk := source.read(files.CHUNK):
            digest.update(chunk)
            left -= len(chunk)
            if left < 0:
                break
            sink.write(chunk)
        sink.flush()
        os.fsync(sink.fileno())
    return digest.hexdigest() if left == 0 else ""
