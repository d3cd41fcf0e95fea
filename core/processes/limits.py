"""What this process may use of its machine: the processors that it is bound to, and what its container allows."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def bound() -> frozenset[int]:
    """The processors that this process may run on, by number."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def processors() -> int:
    """How many processors this process may use: those it is bound to, or the limit of its container if that is less."""
    own = len(bound())
    version_1 = CGROUP / "cpu" / "cpu.cfs_quota_us", CGROUP / "cpu" / "cpu.cfs_period_us"
    for files in ((CGROUP / "cpu.max",), version_1):
        try:
            quota, period = " ".join(file.read_text(encoding="ascii") for file in files).split()
            if int(quota) > 0:  # `max` and -1 mean no limit
                own = min(own, -(-int(quota) // int(period)))
        except (OSError, ValueError):
            continue
    return max(1, own)


def memory_bytes() -> int:
    """The memory of this machine, or of the container that this process runs in."""
    least = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in (CGROUP / "memory.max", CGROUP / "memory" / "memory.limit_in_bytes"):  # of cgroups 2, and of 1
        try:
            least = min(least, int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no limit is written as "max"
            continue
    return least
