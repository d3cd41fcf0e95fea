"""One owner at a time: an OS lock on a local file that says who holds it, or a lease in a bucket (leases.py).

A lock ends with its process, whatever ended it. Where a file system has no locks, and for processes of other
machines, the file itself tells: host, process and its start, and a time that the owner renews.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.names import inside
from core.storage.faults import as_storage_error

log = logging.getLogger(__name__)
RENEWAL, EXPIRY = 15.0, 60.0  # seconds: an owner of another machine that was not heard of for so long is gone
_PROBES = 1.0  # seconds: readers hold a lock for a moment, to see whether it is free
_NO_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}


class LockedError(UserError):
    """Another process holds it."""


@dataclass(frozen=True)
class Holder:
    """A process, told apart from a later one that gets the same number.

    Args:
        host: name of its machine.
        boot: of its machine since it was last started, and its space of process numbers.
        pid: its number.
        started: when it started, in whatever the system counts; empty: the system does not say.
        user: whose it is.
    """

    host: str
    boot: str
    pid: int
    started: str
    user: str

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        return cls(os.uname().nodename, _boot(), os.getpid(), _started(os.getpid()) or "", _user())

    @classmethod
    def parse(cls, value: object) -> Holder | None:
        """The process that JSON from a file describes; None if it describes none."""
        if not isinstance(value, dict) or not isinstance(value.get("host"), str):
            return None
        pid = value.get("pid")
        if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 1 << 31:
            return None
        words = {name: str(value.get(name) or "")[:200] for name in ("boot", "started", "user")}
        return cls(value["host"][:200], words["boot"], pid, words["started"], words["user"])

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return "".join(_PRINTED.findall(f"{self.user or 'somebody'} on {self.host}, process {self.pid}"))

    @property
    def near(self) -> bool:
        """Whether it is, or was, a process that this one can see: of this machine, since it was last started."""
        return self.host == os.uname().nodename and self.boot in ("", _boot())

    def alive(self) -> bool:
        """Whether a process that can be seen from here is still there. One of another user is as much alive."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OSError):
            pass
        started = _started(self.pid)
        return started is None or not self.started or started == self.started


_PRINTED = re.compile(r"[^\x00-\x1f\x7f-\x9f]")


@contextlib.contextmanager
def held(path: Path, what: str, *, patience: float = 0.0) -> Iterator[int]:
    """Holds the lock in the file `path`, which is made and stays; gives its descriptor.

    A process that inherits the descriptor holds the lock too.

    Args:
        path: the file.
        what: is locked, for the error.
        patience: how many seconds to wait for an owner that may be about to end.

    Raises:
        LockedError: another process holds it; says who.
        StorageError: the file cannot be written.
    """
    with as_storage_error(path, "locked"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    stop = threading.Event()
    try:
        me, locked = Holder.here(), _acquire(descriptor, path, what, patience)
        with as_storage_error(path, "locked"):
            _write(descriptor, json.dumps(me.facts()).encode())
        if not locked:  # of two that write at the same moment the later one has it
            time.sleep(_PROBES / 4)
            if (owner := _read(descriptor)) != me:
                raise LockedError(f"{what}: {owner or 'another process'} holds it ({path})")
        renewal = threading.Thread(target=_renew, args=(descriptor, stop), daemon=True)
        renewal.start()
        try:
            yield descriptor
        finally:
            stop.set()
            renewal.join()
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def holder(path: Path, noted: Holder | None = None) -> Holder | None:
    """The living process that holds the lock in `path`, None if there is none.

    Args:
        path: the file; it need not be there.
        noted: who is said to hold it, for a file that is not there or may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return noted if noted is not None and noted.near and noted.alive() else None
    try:
        owner = _read(descriptor)
        taken = _lock(descriptor, fcntl.LOCK_SH)
        if taken is False:
            return owner or noted or Holder("a machine that is not named", "", 0, "", "")
        if owner is None or (taken and owner.host == os.uname().nodename):
            return None
        if owner.near:
            return owner if owner.alive() else None
        return owner if _renewed(descriptor, path) else None
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, what: str, patience: float) -> bool:
    """Takes the lock, or raises `LockedError`. False: the file system has none, and nobody else is there."""
    began, seen, said = time.monotonic(), 0.0, False
    while True:
        taken, owner = _lock(descriptor, fcntl.LOCK_EX), _read(descriptor)
        if taken is False:
            certain = owner is not None and owner.near and owner.alive()
            wait = patience if certain else max(patience, _PROBES)
        elif owner is None or (taken and owner.host == os.uname().nodename):
            return bool(taken)
        elif owner.near:
            if not owner.alive():
                return bool(taken)
            wait = patience
        else:  # of another machine, whose locks may not be seen here: gone if it renews its file no more
            if not _renewed(descriptor, path):
                return bool(taken)
            time_of = os.fstat(descriptor).st_mtime
            seen = seen or time_of
            wait = 2 * EXPIRY if patience and time_of == seen else 0.0
        if taken:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        if time.monotonic() - began >= wait:
            raise LockedError(f"{what}: {owner or 'another process'} holds it ({path})")
        if patience and not said and time.monotonic() - began > _PROBES:
            log.warning("%s: %s holds it; waiting for its end", what, owner or "another process")
            said = True
        time.sleep(0.05)


def _lock(descriptor: int, kind: int) -> bool | None:
    """Whether the lock was taken; None where the file system has none."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _read(descriptor: int) -> Holder | None:
    try:
        return Holder.parse(json.loads(os.pread(descriptor, 4096, 0)))
    except (OSError, ValueError, RecursionError):
        return None


def _write(descriptor: int, data: bytes) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)
    os.fsync(descriptor)


def _renew(descriptor: int, stop: threading.Event) -> None:
    while not stop.wait(RENEWAL):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _renewed(descriptor: int, path: Path) -> bool:
    """Whether the owner's last renewal is recent, by the clock of the machine that has the file system."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            os.utime(probe.fileno())
            now = os.fstat(probe.fileno()).st_mtime
    except OSError:  # a folder that may only be read
        now = time.time()
    return now - os.fstat(descriptor).st_mtime < EXPIRY


def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process started; None where that cannot be known, empty if it has ended."""
    if sys.platform.startswith("linux"):
        try:
            state, *fields = inside(Path("/proc"), f"{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return "" if state in "ZX" else fields[18]  # starttime is field 22 of the line, the state is field 3
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True)
    return done.stdout.strip() or None


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return str(os.getuid())
