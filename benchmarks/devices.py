"""What a clock and a gauge of memory need to know of the device that a benchmark runs on."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def synchronize(where: torch.device) -> None:
    """Waits for all that was asked of the device: a GPU works on after the call has returned, a clock must not."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def peak_bytes(where: torch.device) -> int:
    """The most memory that was held so far: by tensors on a GPU, by this process otherwise."""
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where)
    if STATUS.exists():  # Linux: a process inherits ru_maxrss from the one that started it, but not this
        return next(int(line.split()[1]) for line in STATUS.open() if line.startswith("VmHWM")) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes
