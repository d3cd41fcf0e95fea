"""gcsfuse's rules for a folder of this machine, as Python code meets them.

A bucket without a hierarchical namespace, by gcsfuse's own source (internal/fs/fs.go, version 3.11):

    rename of a folder with children     EMFILE: rename-dir-limit is 0 by default
    rename of a file that is open        ENOTSUP
    hard links                           ENOSYS
    fsync of a folder                    does nothing
    modes and owners                     are those of the mount; chmod does nothing

Files are not appended to or changed in place: gcsfuse allows it, at the price of another upload of all of the object.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOUNT = "GCSFUSE_RULES"
"""Environment variable: the folder that has the rules in programs which a step starts (inside/sitecustomize.py)."""
TABLE = "/proc/self/mounts"


@contextmanager
def rules(mount: str | Path, *, listed: bool = True) -> Iterator[None]:
    """Lets everything below `mount` have the rules in this process.

    Args:
        mount: a folder.
        listed: the system's table of what is mounted where says so.
    """
    root = os.path.realpath(mount)
    old = {name: getattr(os, name) for name in ("rename", "replace", "link", "fsync", "chmod", "open")}
    old_open = io.open

    def below(path: Any) -> bool:
        if isinstance(path, int):
            return False
        return f"{os.path.realpath(os.fspath(path))}/".startswith(f"{root}/")

    def renaming(rename: Callable[..., None]) -> Callable[..., None]:
        def checked(source: Any, target: Any, **more: Any) -> None:
            if below(source) and os.path.isdir(source) and os.listdir(source):
                raise _refusal(errno.EMFILE, source)
            if below(source) and os.path.realpath(source) in set(_open_files()):
                raise _refusal(errno.ENOTSUP, source)
            if below(source) != below(target):
                raise _refusal(errno.EXDEV, source)
            rename(source, target, **more)

        return checked

    def link(source: Any, target: Any, **more: Any) -> None:
        if not below(target):
            return old["link"](source, target, **more)
        code = errno.EEXIST if os.path.lexists(target) else errno.ENOSYS
        raise _refusal(code, target)

    def fsync(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        if not (stat.S_ISDIR(os.fstat(number).st_mode) and below(f"/proc/self/fd/{number}")):
            old["fsync"](descriptor)

    def chmod(path: Any, mode: int, **more: Any) -> None:
        if not below(path):
            old["chmod"](path, mode, **more)

    def low_open(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_APPEND and below(path) and os.path.exists(path) and os.path.getsize(path):
            raise _refusal(errno.ENOTSUP, path)
        return int(old["open"](path, flags, *rest, **more))

    def high_open(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if listed and str(file) == TABLE:
            with old_open(TABLE) as table:
                return io.StringIO(f"{table.read()}bucket {root} fuse.gcsfuse rw 0 0\n")
        changes = "a" in mode or "r+" in mode or ("r" in mode and "+" in mode)
        if changes and below(file) and os.path.exists(file) and os.path.getsize(file):
            raise _refusal(errno.ENOTSUP, file)
        return old_open(file, mode, *rest, **more)

    os.rename, os.replace = renaming(old["rename"]), renaming(old["replace"])
    os.link, os.fsync, os.chmod, os.open = link, fsync, chmod, low_open  # type: ignore[assignment]
    io.open = builtins.open = high_open  # type: ignore[assignment]
    try:
        yield
    finally:
        for name, function in old.items():
            setattr(os, name, function)
        io.open = builtins.open = old_open


def _open_files() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        try:
            yield os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue


def _refusal(code: int, path: Any) -> OSError:
    return OSError(code, os.strerror(code), os.fspath(path))
