"""On PYTHONPATH of a process: its drive has no links, as vfat, exFAT and mounted cloud drives have none, says EPERM or
ENOTSUP (LINKLESS) when asked for one, and cannot sync folders."""

import errno
import os
import stat
from typing import Any

_ERROR = getattr(errno, os.environ.get("LINKLESS", "EPERM"))
_fsync = os.fsync


def _refused(source: Any, target: Any, *_: object, **__: object) -> None:
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, None, target)
    raise OSError(_ERROR, os.strerror(_ERROR), source, None, target)


def _files_only(descriptor: int) -> None:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    _fsync(descriptor)


os.link = os.symlink = _refused
os.fsync = _files_only
