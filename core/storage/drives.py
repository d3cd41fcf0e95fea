"""What drives of this machine can do: links and syncing of folders, where they have them, and without where not."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO

_CANNOT = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}  # what drives say that lack an operation
_NO_LINKS = _CANNOT | {errno.EPERM, errno.EACCES, errno.EMLINK}  # vfat and exFAT say EPERM, some FUSE drives EACCES
_NO_FOLDER_SYNC = _CANNOT | {errno.EBADF}


def name_once(temporary: Path, target: Path, data: bytes) -> bool:
    """Gives the file `temporary`, which holds `data`, the name `target` too, if nothing has it; whether it got it."""
    try:
        os.link(temporary, target)  # fails if the name is taken, and never shows a half-written file
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create_exclusively(target, data)
    return True


def _create_exclusively(target: Path, data: bytes) -> bool:
    """Without links. Only one writer gets the name, but one that is killed here leaves it half written: who reads it
    finds that it is not what it says it is."""
    try:
        with target.open("xb") as stream:
            try:
                fill(stream, data)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
    except FileExistsError:
        return False
    return True


def write_and_sync(path: Path, data: bytes) -> None:
    """Writes a file that survives a power cut."""
    with path.open("wb") as stream:
        fill(stream, data)


def fill(stream: IO[bytes], data: bytes) -> None:
    """Writes to the drive, not only to its cache."""
    stream.write(data)
    stream.flush()
    os.fsync(stream.fileno())


def sync_folder(path: Path) -> None:
    """Makes a rename in `path` survive a power cut, where the drive can do that for folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
