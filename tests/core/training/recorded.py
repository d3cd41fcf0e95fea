"""Recorded work without a GPU: torch.fx, like a CUDA graph, keeps operators and every number that the host put in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from core.training import graphs
from core.training.objective import Batch


class Recordings:
    """From now on CUDA graphs are these: made without changing anything, and run on their inputs as they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, changed: Callable[[], Iterable[Tensor]] = tuple) -> None:
        """`changed` are the tensors besides its inputs that the work changes."""
        self.made = self.replayed = 0
        self._changed = changed
        monkeypatch.setattr(graphs, "_recorded", self._record)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

    def _record(
        self, function: Callable[[Batch], Any], batch: Batch, first: Any
    ) -> tuple[Any, tuple[Tensor, ...], Any]:
        self.made += 1
        return (made := _Graph(self, function, batch, [*self._changed()])), made.inputs, made.result


class _Graph:
    def __init__(self, owner: Recordings, function: Callable[[Batch], Any], batch: Batch, state: list[Tensor]) -> None:
        self._owner = owner
        before = [tensor.clone() for tensor in state]
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):  # fx takes no tensors of inference
            self.inputs = tuple(tensor.clone() for tensor in batch.tensors)
            # It tells no host from a device: that a recorded step reads nothing back is for fake CUDA to say.
            record = make_fx(lambda *tensors: function(Batch(tensors, batch.kind)), _error_on_data_dependent_ops=False)
            self._run = record(*self.inputs)
            with torch.no_grad():
                _copy(state, before)
                self.result = self._again()
                _copy(state, before)

    def replay(self) -> None:
        self._owner.replayed += 1
        with torch.no_grad():
            new = self._again()
            _copy(*((one,) if isinstance(one, Tensor) else one for one in (self.result, new)))

    def _again(self) -> Any:
        with torch.autocast("cpu", enabled=False):  # casts are among what was recorded
            return self._run(*self.inputs)


def _copy(into: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    for tensor, value in zip(into, values, strict=True):
        tensor.copy_(value)
