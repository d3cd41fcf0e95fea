"""A process as the image's user, with everything around it owned by root."""

from __future__ import annotations

import ctypes
import os
import sys

USER = 10001  # of containers/Dockerfile
_KEEP_CAPABILITIES, _AMBIENT, _RAISE = 8, 47, 2  # of prctl(2)
_SECURE_BITS, _NO_FIXUP = 28, 4  # the rights of a process stay when its user changes
_CHOWN, _READ_ALL, _SETGID, _SETUID = 0, 2, 6, 7  # CAP_CHOWN, CAP_DAC_READ_SEARCH, CAP_SETGID, CAP_SETUID
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
    _keep(libc, 1 << _READ_ALL)
    if libc.prctl(_AMBIENT, _RAISE, _READ_ALL, 0, 0):
        raise OSError(ctypes.get_errno(), "capabilities cannot be kept")
    os.environ["HOME"] = "/tmp"  # as in the image


def begin_as_root() -> None:
    """Lets this process, which is root, become another user by itself and still read the interpreter's folder."""
    if not possible():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SECURE_BITS, _NO_FIXUP, 0, 0, 0)
    _keep(libc, 1 << _READ_ALL | 1 << _CHOWN | 1 << _SETGID | 1 << _SETUID)


def _keep(libc: ctypes.CDLL, rights: int) -> None:
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    kept = (ctypes.c_uint32 * 6)(rights, rights, rights, 0, 0, 0)  # effective, permitted, inheritable; those above 31
    if libc.capset(header, kept):
        raise OSError(ctypes.get_errno(), "capabilities cannot be kept")
