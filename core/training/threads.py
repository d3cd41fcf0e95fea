"""Threads of a training: those of its checkpoint, where nobody asked for a number."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

CHOSEN = "TEXTDIFFUSION_THREADS"  # set where a run chose the number of threads, and not its user


def keep(before: Mapping[str, Any]) -> None:
    """Computes on with as many threads as the machine `before` had, a checkpoint's: then its weights are bit-identical.

    A number that the user set by OMP_NUM_THREADS is left as it is.
    """
    import torch

    count = before.get("threads")
    if os.environ.get(CHOSEN) and isinstance(count, int) and 0 < count <= (os.cpu_count() or 1):
        torch.set_num_threads(count)
