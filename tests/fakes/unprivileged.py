"""A process as the image's user, with everything around it owned by root."""

from __future__ import annotations

import ctypes
import os
import sys

USER = 10001  # of containers/Dockerfile
_KEEP_CAPABILITIES, _AMBIENT, _RAISE = 8, 47, 2  # of prctl(2)
_READ_ALL = 2  # CAP_DAC_READ_SEARCH
_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3


def possible() -> bool:
    """Whether this process may become another user."""
    return sys.platform.startswith("linux") and os.geteuid() == 0


def become() -> None:
    """Makes this process that of user and group `USER`, where it may; else it stays who it is.

    The interpreter may lie in a home folder that only root enters. So the right to read everything is kept, and in
    the programs that this process starts; none to write.
    """
    if not possible():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    rights = (ctypes.c_uint32 * 6)(*[1 << _READ_ALL] * 3, 0, 0, 0)  # effective, permitted, inheritable; those above 31
    if libc.capset(header, rights) or libc.prctl(_AMBIENT, _RAISE, _READ_ALL, 0, 0):
        raise OSError(ctypes.get_errno(), "capabilities cannot be kept")
    os.environ["HOME"] = "/tmp"  # as in the image
