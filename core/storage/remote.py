"""Remote storage (the schemes of core/schemes.py): every operation whole, tried again, or one clear line."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.schemes import scheme_of
from core.storage.faults import StorageError, steadily


def filesystem(uri: str | Path) -> tuple[Any, str]:
    """The file system of `uri`, forgetting what it remembered of names that other processes may change; the path."""
    # gcsfs probes for hierarchical namespaces over gRPC at its first write; against an emulator that hangs.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # its tracebacks; what matters is raised, and said in a line
    try:
        scheme = scheme_of(uri)
        fs = fsspec.filesystem(scheme.implementation, **scheme.options)
    except (ValueError, ImportError) as error:
        raise UserError(f"{uri}: {error}") from None
    fs.invalidate_cache()
    return fs, fs._strip_protocol(str(uri))


class Reader(io.RawIOBase):
    """A remote file whose every read survives passing faults."""

    def __init__(self, stream: Any, uri: str) -> None:
        self._stream, self._uri = stream, uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def readinto(self, buffer: Any) -> int:
        position = self._stream.tell()

        def read() -> bytes:
            self._stream.seek(position)
            return bytes(self._stream.read(len(buffer)))

        data = steadily(read, self._uri, "read")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def read(uri: str | Path, limit: int | None) -> bytes:
    """The whole content.

    Raises:
        FileNotFoundError: there is no such object.
        UserError: it is longer than `limit` bytes.
    """
    fs, path = filesystem(uri)

    def whole() -> bytes:
        expected = int(fs.info(path)["size"])
        if limit is not None and expected > limit:
            raise UserError(f"{uri}: larger than {limit} bytes")
        data = bytes(fs.cat_file(path))
        if len(data) != expected:
            raise ConnectionError(f"{len(data)} of {expected} bytes arrived")
        return data

    return steadily(whole, uri, "read")


def details(uri: str | Path) -> dict[str, dict[str, Any]]:
    """What the store says of each object below `uri` (size, md5Hash, etag, ...), by name; nothing is read.

    Raises:
        StorageError: the store does not answer.
    """
    fs, path = filesystem(uri)
    found: dict[str, dict[str, Any]] = steadily(lambda: fs.find(path, detail=True), uri, "listed")
    prefix = path.rstrip("/") + "/"
    return {name.removeprefix(prefix): facts for name, facts in sorted(found.items())}


def written(operation: Callable[[], Any], uri: str | Path) -> None:
    """Does an upload.

    Raises:
        FileExistsError: it was to be made, and is there.
        StorageError: it failed.
    """
    try:
        steadily(operation, uri, "written")
    except FileNotFoundError:
        raise StorageError(f"{uri}: cannot be written: there is no such bucket") from None


def upload(source: Path, target: str) -> None:
    """Copies a local file to `target`."""
    fs, path = filesystem(target)
    written(lambda: fs.put_file(str(source), path), target)  # an upload that breaks off leaves no object
