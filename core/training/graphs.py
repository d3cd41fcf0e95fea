"""CUDA graphs: work that a GPU is asked for once and repeats, so that it does not wait for Python to ask again.

A step of a small network is a thousand kernels of a few microseconds. Launched one by one they leave a fast GPU idle
most of the time (H200, `mnist-training`: 2,700 images/s, 24,000 recorded).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

from core.training.objective import Batch

WARM = 3  # calls of a kind that run kernel by kernel: libraries choose algorithms, optimizers make their state
WORTH = 64  # calls that make a recording worth its time where it serves for these alone
MOST = 16  # graphs kept; a kind beyond runs kernel by kernel

R = TypeVar("R", Tensor, tuple[Tensor, ...])

log = logging.getLogger(__name__)


class Graphs:
    """A function of batches that has no other input, and waits for nothing, recorded once for each kind of batch.

    What it computes is the same, to the last bit: the same kernels in the same order. It copies nothing from the host,
    whose memory is another's by the time that a recording is repeated.

    Args:
        warm: calls of a kind that run kernel by kernel before it is recorded; None: `WARM`.
        on: False where nothing is to be recorded, as on a CPU: every call is then the function's own.
    """

    def __init__(self, warm: int | None = None, *, on: bool = True) -> None:
        self.on = on
        self._warm = warm
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Any]] = {}
        self._calls: Counter[Hashable] = Counter()
        self._refused = False

    def __call__(self, function: Callable[[Batch], R], batch: Batch, *, record: bool = True) -> R:
        """`function(batch)`; kernel by kernel without `record`, as where somebody watches."""
        if not self.on:
            return function(batch)
        kind = (*batch.kind, *((tensor.shape, tensor.dtype) for tensor in batch.tensors))
        self._calls[kind] += 1
        if not record:
            return function(batch)
        if kind not in self._graphs:
            warm = WARM if self._warm is None else self._warm
            if self._refused or self._calls[kind] <= warm or len(self._graphs) == MOST:
                return function(batch)
            self._refused = not self._record(kind, function, batch)
            if self._refused:  # here, where no error holds on to the memory of the attempt
                return function(batch)
        graph, inputs, result = self._graphs[kind]
        for dtype in {tensor.dtype for tensor in inputs}:  # those of several types a GPU would copy one by one
            into, new = ([one for one in some if one.dtype == dtype] for some in (inputs, batch.tensors))
            torch._foreach_copy_(into, new, non_blocking=True)
        graph.replay()
        copies: Any = result.clone() if isinstance(result, Tensor) else tuple(tensor.clone() for tensor in result)
        return copies

    def _record(self, kind: Hashable, function: Callable[[Batch], R], batch: Batch) -> bool:
        """Records a kind; False if a network of the user's own, which may wait for the GPU, cannot be."""
        first = next(iter(self._graphs.values()), (None,))[0]
        try:
            self._graphs[kind] = _recorded(function, batch, first)
        except RuntimeError as error:
            log.warning("no CUDA graph of a step, which runs kernel by kernel: %s", str(error).partition("\n")[0])
            return False
        return True


def _recorded(
    function: Callable[[Batch], R], batch: Batch, first: torch.cuda.CUDAGraph | None
) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], R]:
    """In the memory of the `first` recording: one runs after the other, and what they come to is copied."""
    inputs = tuple(tensor.clone() for tensor in batch.tensors)
    torch.cuda.synchronize()
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, pool=None if first is None else first.pool()):
            result = function(Batch(inputs, batch.kind))
    except BaseException:
        torch.cuda.set_stream(stream)  # torch stays on the recording's where that cannot be ended
        raise
    return graph, inputs, result


def worthwhile(device: torch.device, calls: int) -> Graphs:
    """For work that `device` is asked for so many times; off where kernel by kernel is as well."""
    return Graphs(on=device.type == "cuda" and calls >= WORTH)
