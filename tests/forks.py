"""Processes forked from one that has imported torch and what trains, and computes nothing itself: seconds less each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["pytest", "core.images.modality", "core.text.modality", "core.training.loop", "torch.utils.tensorboard"]
)


def forked(work: Callable[..., object], *arguments: Any) -> BaseProcess:
    """A process that does `work(*arguments)` on one thread: with more, sums may be made in another order."""
    process = _FORKS.Process(target=_alone, args=(work, arguments))
    process.start()
    return process


def _alone(work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    work(*arguments)
