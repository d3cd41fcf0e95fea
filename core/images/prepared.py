"""A model's networks as a draw evaluates them: weights cast once, and on a GPU recorded once and repeated.

A path is recorded from end to end, network, guidance and sampler: a batch is then one launch. Its noise levels are
numbers of the host, so each list of them is a recording of its own; the keys of its noise are an input.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core import samplers
from core.images.config import ImageSample
from core.images.denoising_path import DenoisingPath
from core.images.evidence import Evidence
from core.images.guidance import denoiser_of
from core.images.model import TrainedModel
from core.randomness import Noise, normal
from core.training import numerics
from core.training.casts import Casts
from core.training.graphs import Graphs
from core.training.objective import Batch
from core.training.precision import Precision
from core.transfer import to_device

RECORDED = 3  # batches from which on a GPU's work is recorded, which takes as long as one or two
LONGEST = 64  # steps of a path that is recorded from end to end: all of its kernels are kept


class Prepared:
    """The networks that `settings` draw by, in each number format that is needed; weights must stay as they are.

    Args:
        trained: networks and process.
        settings: whether the guide is evaluated.
        device: where.
        batches: that will be drawn.
    """

    def __init__(self, trained: TrainedModel, settings: ImageSample, device: torch.device, batches: int = 1) -> None:
        self._trained, self._settings = trained, settings
        self._singly, self._paths = False, Graphs(on=False)
        self.shape = trained.shape
        self.trained_in: str = trained.description.get("train_precision", "auto")
        self._made: dict[torch.dtype | None, TrainedModel] = {}
        if device.type == "cuda" and batches >= RECORDED:
            self.record()

    def record(self) -> None:
        """Has paths recorded, or, where they are long, each evaluation of a network."""
        if samplers.evaluations(self._settings.sampler, self._settings.steps) <= LONGEST:
            self._paths = Graphs(warm=1)
        else:
            self._singly = True

    def within(self, number_format: Precision) -> TrainedModel:
        """The model with networks that compute in `number_format`."""
        dtype = number_format.dtype
        if dtype not in self._made:
            guide = self._trained.guide if self._settings.autoguidance != 1 else None
            network, guide = (
                _Network(one, dtype, recorded=self._singly) if one is not None else None
                for one in (self._trained.network, guide)
            )
            assert network is not None
            self._made[dtype] = replace(self._trained, network=network, guide=guide)
        return self._made[dtype]

    def solved(
        self,
        number_format: Precision,
        settings: ImageSample,
        labels: NDArray[np.int64],
        sigmas: Tensor,
        source: Noise,
        callback: samplers.Callback = None,
        evidence: Evidence | None = None,
    ) -> Tensor:
        """The samples [B, C, H, W] for `labels` [B] from noise of `source`, on the device; no step waits for it."""
        for watching in (callback, evidence):
            if isinstance(watching, DenoisingPath | Evidence):
                watching.begin()
        trained, unconditional = self.within(number_format), bool((labels == len(self.shape.class_names)).all())

        def path(batch: Batch) -> tuple[Tensor, ...]:
            placed, keys = batch.tensors
            noise = (normal(each, *self.shape.size) for each in keys).__next__
            denoiser = denoiser_of(trained, settings, placed, source.device, evidence, unconditional)
            x = float(sigmas[0]) * noise()
            if settings.start == "estimate":
                x = samplers.estimated_start(denoiser, x, float(sigmas[0]))
            x = samplers.SAMPLERS[settings.sampler](denoiser, x, sigmas, noise=noise, callback=callback)
            return x, *(evidence.gathered() if evidence else ())

        keys = source.keys(1 + samplers.noises(settings.sampler, settings.steps))
        kind = (settings, number_format, unconditional, evidence is not None, *sigmas.tolist())
        batch = Batch((to_device(torch.from_numpy(labels), source.device), keys), kind)
        with numerics.switched(number_format, source.device), number_format.autocast(source.device):
            x, *seen = self._paths(path, batch, record=callback is None)
        if evidence is not None and seen:
            evidence.take(*seen)
        return x


class _Network(nn.Module):
    """F(x, c_noise, label) of core/noise.py, for evaluations without gradients."""

    def __init__(self, network: nn.Module, dtype: torch.dtype | None, *, recorded: bool) -> None:
        super().__init__()
        self.network, self._dtype = network, dtype
        self._casts = Casts(network, dtype)
        self._casts.refresh()
        self._graphs = Graphs(on=recorded)

    def forward(self, *inputs: Tensor) -> Tensor:
        if self._dtype is None:
            return self._graphs(self._output, Batch(inputs))
        # Without autocast's own cache: a recording would read from it when it is gone.
        with torch.autocast(inputs[0].device.type, self._dtype, cache_enabled=False), self._casts.in_place():
            return self._graphs(self._output, Batch(inputs))

    def _output(self, batch: Batch) -> Tensor:
        output: Tensor = self.network(*batch.tensors)
        return output
