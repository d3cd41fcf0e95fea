"""What a model family gives the training loop."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from core.randomness import DataOrder, Draws
from core.training.optimizers import ParameterGroup


@dataclass(frozen=True)
class Batch:
    """All that the loss of a step depends on besides the weights: data and random numbers.

    Args:
        tensors: on the device of the model; those of one `kind` have one shape.
        kind: what the loss decides without looking into a tensor.
    """

    tensors: tuple[Tensor, ...]
    kind: tuple[Hashable, ...] = ()


class Objective(Protocol):
    """What a model family gives the loop: a network, its loss, and how to look at it."""

    model: nn.Module

    def order(self, seed: int) -> DataOrder:
        """The examples of the data set in the order in which a training with `seed` sees them."""

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """How parameters are optimized; `core.training.optimizers.default_groups` serves most networks."""

    def batch(self, indices: Tensor, draws: Draws) -> Batch:
        """The examples at `indices` [b], with noise from `draws`."""

    def loss(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        """Losses [b] of a batch; `model` is the network to call.

        On a GPU it is recorded once for each kind of batch and replayed: it must neither wait for the GPU nor draw
        random numbers of its own, other than dropout's.
        """

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Losses on fixed noise: `loss`, and `loss/<bin>` by noise level."""

    def preview(self, model: nn.Module) -> tuple[str, bytes] | None:
        """A picture or text of what the model makes now: (file suffix, content)."""


class Statistic(nn.Module):
    """Buffers that change with the losses a step has seen: once a step, by what all processes saw together.

    Changed at once, in each process by its own share, they would differ between processes, and a step that is skipped
    would leave its traces.
    """

    def settle(self, keep: Tensor) -> None:
        """Takes in what was observed since the last call if `keep`, a boolean on the device, or forgets it; called by
        every process after each step."""
        raise NotImplementedError


def settle(model: nn.Module, keep: Tensor) -> None:
    """Settles all statistics of `model` after a step; `keep` is false if the step was skipped."""
    for module in model.modules():
        if isinstance(module, Statistic):
            module.settle(keep)
