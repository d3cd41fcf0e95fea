"""Temporary folders that do not outlive their process for long: what a killed one left, the next one removes.

Each holds a lock, which its process and those that inherit it keep. A folder of ours whose lock is free is dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX, LOCK, NEW = "textdiffusion-", ".lock", ".lock.new"


@contextlib.contextmanager
def temporary_folder(name: str = "scratch") -> Iterator[Path]:
    """A temporary folder, removed at the end."""
    with held_folder(name) as (path, _):
        yield path


@contextlib.contextmanager
def held_folder(name: str = "scratch") -> Iterator[tuple[Path, int]]:
    """A temporary folder, removed at the end, and the descriptor of its lock for processes that are to hold it too."""
    path, lock = keep(name)
    try:
        yield path, lock
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def keep(name: str = "scratch") -> tuple[Path, int]:
    """A temporary folder that is there until this process ends, and some time after; the descriptor of its lock."""
    sweep()
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name}-"))
    lock = os.open(path / NEW, os.O_RDWR | os.O_CREAT, 0o600)
    with contextlib.suppress(OSError):  # a file system without locks: nobody will think that it is free
        fcntl.flock(lock, fcntl.LOCK_EX)
        (path / NEW).rename(path / LOCK)  # seen only once it is held
    return path, lock


def sweep() -> None:
    """Removes the temporary folders of dead processes, of this user alone."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        with contextlib.suppress(OSError):
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            lock = os.open(path / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
