"""What drives of this machine can do: links and syncing of folders, where they have them, and without where not; and
which of them is a bucket that is mounted as a folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO

_CANNOT = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}  # what drives say that lack an operation
_NO_LINKS = _CANNOT | {errno.EPERM, errno.EACCES, errno.EMLINK}  # vfat and exFAT say EPERM, some FUSE drives EACCES
_NO_FOLDER_SYNC = _CANNOT | {errno.EBADF}
VERTEX_BUCKETS = Path("/gcs")
"""Where Vertex AI mounts buckets, by gcsfuse."""


def name_once(temporary: Path, target: Path, data: bytes) -> bool:
    """Gives the file `temporary`, which holds `data`, the name `target` too, if nothing has it; whether it got it."""
    try:
        os.link(temporary, target)  # fails if the name is taken, and never shows a half-written file
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return create_exclusively(target, data)
    return True


def create_exclusively(target: Path, data: bytes) -> bool:
    """Without links. Only one writer gets the name, but one that is killed here leaves it half written: who reads it
    finds that it is not what it says it is."""
    try:
        with target.open("xb") as stream:
            try:
                fill(stream, data)
            except BaseException as error:
                if not _taken(error):
                    target.unlink(missing_ok=True)
                raise
    except FileExistsError:
        return False
    except OSError as error:
        if not _taken(error):
            raise
        return False
    return True


def _taken(error: BaseException) -> bool:
    """What a mounted bucket says when another machine has created the object meanwhile, which is that one's."""
    return isinstance(error, OSError) and error.errno == errno.ESTALE


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


def is_mounted_bucket(path: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether `path` is, or would be, on a file system of a user's program (FUSE), as every mounted bucket is.

    Args:
        path: need not exist.
        mounts: the system's table of what is mounted where; systems without one have no such rule.
    """
    place = Path(os.path.realpath(path))
    if place.is_relative_to(VERTEX_BUCKETS):
        return True
    try:
        rows = [line.split() for line in mounts.read_text(errors="replace").split("\n") if line]
    except OSError:
        return False
    points = [(row[1].replace("\\040", " "), row[2]) for row in rows if len(row) > 2]
    around = [(len(where), index, kind) for index, (where, kind) in enumerate(points) if place.is_relative_to(where)]
    return max(around, default=(0, 0, ""))[2].split(".")[0] == "fuse"
