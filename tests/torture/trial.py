"""What all faults share: a trial that either survives or loses something, repeated and counted."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

MODULE = "python -m tests.torture"
PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a kill is no power cut: memory does, and is fast


class LostError(Exception):
    """Something was lost: a result differs, a record is wrong, a process hung."""


class Survived(NamedTuple):
    """What a trial came to: how many cases it was, and how many of them stopped clean instead of ending right."""

    cases: int
    stopped: int = 0


Trial = Callable[[random.Random, Path], int | Survived]
"""One try in an empty folder, with its own randomness; returns how many cases it was. Raises `LostError`."""


@dataclass
class Fault:
    """One kind of fault.

    Args:
        name: what it is called on the command line.
        title: what is done, for the table.
        trial: does it once.
        weight: its share of the time; with all faults 1 is about 2 minutes of a core in half an hour.
    """

    name: str
    title: str
    trial: Trial
    weight: float = 1.0


@dataclass
class Tally:
    """What came of a fault so far."""

    tries: int = 0
    survived: int = 0
    stopped: int = 0  # of those that survived: stopped clean, with one line
    seconds: float = 0.0
    lost: list[str] = field(default_factory=list)


def repeat(fault: Fault, *, seed: int, seconds: float | None = None, trials: int | None = None) -> Tally:
    """Repeats a fault for `seconds`, or `trials` times; trial i has the seed `seed` + i, so that it can be repeated."""
    began, tally, number = time.monotonic(), Tally(), 0
    while number == 0 or (
        (seconds is None or time.monotonic() - began < seconds) and (trials is None or number < trials)
    ):
        with tempfile.TemporaryDirectory(prefix="torture-", dir=PLACE) as folder:
            try:
                result = fault.trial(random.Random(seed + number), Path(folder))
                cases, stopped = result if isinstance(result, Survived) else (result, 0)
                tally.tries += cases
                tally.survived += cases
                tally.stopped += stopped
            except Exception as error:
                tally.tries += 1
                kind = "" if isinstance(error, LostError) else f"{type(error).__name__}: "
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = "" if isinstance(error, LostError) else f" ({Path(place.filename).name}:{place.lineno})"
                again = f"{MODULE} {fault.name} --seed {seed + number} --trials 1"
                tally.lost.append(f"{kind}{error}{where}; again: {again}")
        number += 1
    tally.seconds = time.monotonic() - began
    return tally


def require(condition: bool, message: str) -> None:
    """Raises `LostError` unless `condition` holds."""
    if not condition:
        raise LostError(message)


def fork(work: Callable[[], int | None], log: Path | None = None) -> int:
    """Runs `work` in a copy of this process, in its own process group; returns its id. It ends with work's exit code.

    Much faster than a new interpreter: torch is imported once. Nothing is computed in the parent, so that no thread
    pool is lost in the copy.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        out = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        code = work() or 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(pid: int, seconds: float) -> int:
    """The exit code of a forked process, -N if signal N ended it.

    Raises:
        LostError: it did not end in time; it is killed.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise LostError(f"did not end within {seconds:g} s")


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Sets variables of the environment for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
