"""A model's networks as a draw evaluates them: weights cast once, and on a GPU recorded once and repeated."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from core.images.config import ImageSample
from core.images.model import TrainedModel
from core.training.casts import Casts
from core.training.graphs import Graphs
from core.training.objective import Batch
from core.training.precision import Precision

RECORDED = 3  # batches from which on a GPU's evaluations are recorded, which takes as long as one or two


class Prepared:
    """The networks that `settings` draw by, in each number format that is needed; weights must stay as they are.

    Args:
        trained: networks and process.
        settings: whether the guide is evaluated.
        device: where.
        batches: that will be drawn.
    """

    def __init__(self, trained: TrainedModel, settings: ImageSample, device: torch.device, batches: int = 1) -> None:
        self._trained, self._guided = trained, settings.autoguidance != 1
        self._recorded = device.type == "cuda" and batches >= RECORDED
        self.trained_in: str = trained.description.get("train_precision", "auto")
        self._made: dict[torch.dtype | None, TrainedModel] = {}

    def within(self, number_format: Precision) -> TrainedModel:
        """The model with networks that compute in `number_format`."""
        dtype = number_format.dtype
        if dtype not in self._made:
            network, guide = (
                _Network(one, dtype, recorded=self._recorded) if one is not None else None
                for one in (self._trained.network, self._trained.guide if self._guided else None)
            )
            assert network is not None
            self._made[dtype] = replace(self._trained, network=network, guide=guide)
        return self._made[dtype]


class _Network(nn.Module):
    """F(x, c_noise, label) of core/noise.py, for evaluations without gradients."""

    def __init__(self, network: nn.Module, dtype: torch.dtype | None, *, recorded: bool) -> None:
        super().__init__()
        self.network, self._dtype = network, dtype
        self._casts = Casts(network, dtype)
        self._casts.refresh()
        self._graphs = Graphs() if recorded else None

    def forward(self, *inputs: Tensor) -> Tensor:
        if self._dtype is None:
            return self._evaluated(Batch(inputs))
        # Without autocast's own cache: a recording would read from it when it is gone.
        with torch.autocast(inputs[0].device.type, self._dtype, cache_enabled=False), self._casts.in_place():
            return self._evaluated(Batch(inputs))

    def _evaluated(self, batch: Batch) -> Tensor:
        return self._graphs(self._output, batch) if self._graphs else self._output(batch)

    def _output(self, batch: Batch) -> Tensor:
        output: Tensor = self.network(*batch.tensors)
        return output
