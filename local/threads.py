"""How many threads each process of a run computes with: as many as others leave processors free when the run begins.

Threads of one product wait for one another. Beside other work two of them were slower than one: 47 images a second
instead of 104 (the job mnist-training, two processors, four busy processes). The number is kept for the run, because
sums, and so weights, depend on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.processes import limits
from core.training.threads import CHOSEN

ASKED = "OMP_NUM_THREADS"
SECONDS = 0.25  # the processors are watched for
STAT = Path("/proc/stat")


@dataclass(frozen=True)
class Threads:
    """What a run computes with: `count` threads a process; None: as many as torch takes by itself."""

    count: int | None
    line: str = ""  # that says so

    def environment(self) -> dict[str, str]:
        """Variables of the steps that make it so; none where the user has said a number."""
        if not self.line:
            return {}
        return {CHOSEN: "run", **({ASKED: str(self.count)} if self.count else {})}


def choose(environment: Mapping[str, str], before: Mapping[str, object]) -> Threads:
    """The threads of a run.

    Args:
        environment: of the user, whose OMP_NUM_THREADS is taken as it is.
        before: the record of the run that is gone on with, which keeps its number; else empty.
    """
    if environment.get(ASKED):
        return Threads(None)
    processors = limits.processors()
    if "threads" in before:
        kept = before["threads"]
        count = kept if isinstance(kept, int) and kept > 0 else None
        return Threads(count, f"threads: {_said(count, processors)}, as this run began")
    free = free_processors(processors)
    count = max(1, round(free))
    if count >= processors:  # torch counts those it is bound to, and knows no limit of a container
        limited = processors if processors < len(limits.bound()) else None
        return Threads(limited, f"threads: {_said(None, processors)}")
    busy = f"{processors - count} busy with other work"
    return Threads(count, f"threads: {_said(count, processors)}, {busy}; {ASKED}=N sets another number")


def _said(count: int | None, processors: int) -> str:
    many = "processor" if processors == 1 else "processors"
    return f"all of {processors} {many}" if count is None else f"{count} of {processors} {many}"


def free_processors(processors: int) -> float:
    """How many of those that this process may run on nobody uses, up to `processors`: watched for a moment on Linux,
    else by the load of the last minute."""
    own = limits.bound()
    before = _idle(own)
    if before is None:
        return processors - os.getloadavg()[0] if hasattr(os, "getloadavg") else processors
    time.sleep(SECONDS)
    after = _idle(own) or before
    idle, total = after[0] - before[0], after[1] - before[1]
    return min(processors, len(own) * idle / total) if total > 0 else processors


def _idle(own: Collection[int]) -> tuple[int, int] | None:
    """Ticks since the start that the processors `own` were idle, and all their ticks; None where nobody counts them."""
    try:
        rows = [line.split() for line in STAT.read_text(encoding="ascii").split("\n")]
        ticks = [[int(tick) for tick in row[1:9]] for row in rows if row and row[0] in {f"cpu{one}" for one in own}]
        return sum(each[3] + each[4] for each in ticks), sum(map(sum, ticks))
    except (OSError, ValueError, IndexError):
        return None
