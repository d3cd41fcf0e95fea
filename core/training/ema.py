"""Power-function exponential moving average of weights (Karras et al. 2024, EDM2, section 3.1).

Its horizon grows with the training itself, so one setting fits a run of a minute and a run of a day: a fixed decay of
.9999 would leave the initial weights in a short one.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn


def exponent_of_std(std: float) -> float:
    """gamma of the profile t^gamma whose relative standard deviation is `std` (EDM2, equation 126).

    std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) is a cubic in gamma; its largest root is the one above -1/2.
    """
    t = std**-2
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())  # eq. 126


class PowerEMA:
    """A copy of `model` whose weights are the average of all weights so far, weighted by (examples seen)^gamma.

    `update` is a pure function of the averages, the weights and the clock, so that resuming needs nothing else.
    """

    def __init__(self, model: nn.Module, std: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._gamma = exponent_of_std(std)

    def kept(self, examples_seen: int, batch_size: int) -> float:
        """The share of the old average after `examples_seen`, of which the last `batch_size` are new."""
        return float((1 - batch_size / examples_seen) ** (self._gamma + 1))

    @torch.no_grad()
    def update(self, model: nn.Module, kept: float | Tensor) -> None:
        """Takes in the weights beside a share `kept` of the average; a number, or one on the device."""
        averages: list[Tensor] = list(self.model.parameters())
        weights = [weight.detach() for weight in model.parameters()]
        if isinstance(kept, Tensor):
            torch._foreach_mul_(averages, kept)
            torch._foreach_add_(averages, torch._foreach_mul(weights, 1 - kept))
        else:
            torch._foreach_lerp_(averages, weights, 1 - kept)  # eq. 127
        for buffer, value in zip(self.model.buffers(), model.buffers(), strict=True):
            buffer.copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.model.load_state_dict(state)
