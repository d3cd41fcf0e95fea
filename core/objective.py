"""What a model family gives the training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from core.optim import ParameterGroup
from core.randomness import Draws


class Objective(Protocol):
    """What a model family gives the loop: a network, its loss, and how to look at it."""

    model: nn.Module
    dataset_size: int

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """How parameters are optimized; `core.optim.default_groups` serves most networks."""

    def loss(self, model: Callable[..., Any], indices: Tensor, draws: Draws) -> Tensor:
        """Losses [b] of the examples at `indices` [b], with noise from `draws`; `model` is the network to call."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Losses on fixed noise: `loss`, and `loss/<bin>` by noise level."""

    def preview(self, model: nn.Module) -> tuple[str, bytes] | None:
        """A picture or text of what the model makes now: (file suffix, content)."""
