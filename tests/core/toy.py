"""A training objective small enough to reason about: linear regression with noise drawn by the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core.randomness import DataOrder, Draws
from core.training.objective import Batch
from core.training.optimizers import ParameterGroup, default_groups


class ToyObjective:
    """Learns y = W x from noisy x, with dropout, so that every source of randomness takes part."""

    dataset_size = 50

    def __init__(self, *, poison_after: int | None = None, dropout: float = 0.1, exact: bool = False) -> None:
        """`exact`: in float64, so that sums in another order differ by rounding too small to grow."""
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(self.dataset_size, 8, generator=generator)
        self.targets = self.inputs @ torch.randn(8, 3, generator=generator)
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(8, 16), nn.Dropout(dropout), nn.ReLU(), nn.Linear(16, 3))
        if exact:
            self.inputs, self.targets, self.model = self.inputs.double(), self.targets.double(), self.model.double()
        self.seen_indices: list[int] = []
        self.poison_after, self.calls = poison_after, 0

    def order(self, seed: int) -> DataOrder:
        return DataOrder(self.dataset_size, seed)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        return default_groups(self.model)

    def batch(self, indices: Tensor, draws: Draws) -> Batch:
        self.seen_indices += indices.tolist()
        return Batch(
            (self.inputs[indices] + 0.1 * draws.stratified()[:, None] * draws.normal(8), self.targets[indices])
        )

    def loss(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        self.calls += 1
        noisy, targets = batch.tensors
        losses = (model(noisy) - targets).square().mean(1)
        if self.poison_after is not None and self.calls > self.poison_after:
            losses = losses * float("nan")
        return losses

    def validate(self, model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"loss": float((model(self.inputs) - self.targets).square().mean())}

    def preview(self, model: nn.Module) -> tuple[str, bytes] | None:
        return ".txt", f"{self.validate(model)['loss']:.6f}".encode()
