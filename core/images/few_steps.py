"""From a diffusion model to one that draws in one step or two: regression on where paths of its sampling end.

A path follows an ODE (`dpmpp`) with all guidance, so its end is a function of where it begins and of the class, and
regression on it has no average to blur (Luhman and Luhman 2021). Paths begin at noise alone, and in the middle, where
DDPM comes from the end of the first path: at that image under fresh noise. The network begins with the teacher's
weights and learns both ends. So it is sampled by DDPM along [top, middle, 0], without guidance. What it could not learn
of the first jump is a blur, which the fresh noise hides.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core import samplers
from core.images.config import FewSteps, ImageSample
from core.images.guidance import denoiser_of
from core.images.model import TrainedModel
from core.images.objective import ImageObjective
from core.noise import karras_sigmas
from core.randomness import DataOrder, Draws, Noise
from core.training.objective import Batch
from core.transfer import to_device

TOGETHER, HELD_OUT = 250, 250  # paths solved in one batch, whatever asks for them: the same bits each time
LOWEST = 0.002  # noise level before a path's end


class Paths:
    """Where the teacher's paths begin and end, and their class, solved when they are asked for."""

    def __init__(self, teacher: TrainedModel, settings: FewSteps, device: torch.device, seed: int) -> None:
        self.teacher, self.device, self.seed = teacher, device, seed
        self.top, self.middle = settings.top, settings.middle
        self.whole = karras_sigmas(settings.steps, LOWEST, self.top)
        self.half = karras_sigmas(max(2, -(-settings.steps // 2)), LOWEST, self.middle)
        self.settings = ImageSample(
            guidance=settings.guidance,
            guidance_low=settings.guidance_low,
            guidance_high=settings.guidance_high,
            autoguidance=settings.autoguidance,
        )
        self._solved: dict[int, tuple[Tensor, ...]] = {}

    def at(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Noise, the ends of its paths, states in the middle and the ends of theirs, all [b, C, H, W], and labels [b]
        of the paths `indices` [b], on the device."""
        parts = torch.div(indices, TOGETHER, rounding_mode="floor")
        solved = {int(part): self._part(int(part)) for part in parts.unique()}
        rows = [solved[part] for part in parts.tolist()]
        places = (indices % TOGETHER).tolist()
        return tuple(torch.stack([row[kind][i] for row, i in zip(rows, places, strict=True)]) for kind in range(5))

    def _part(self, number: int) -> tuple[Tensor, ...]:
        if number not in self._solved:
            self._solved[number] = self._solve(number)
        return self._solved[number]

    @torch.no_grad()
    def _solve(self, number: int) -> tuple[Tensor, ...]:
        """Paths [number x TOGETHER, (number + 1) x TOGETHER), classes in turn."""
        teacher, classes = self.teacher, len(self.teacher.shape.class_names)
        labels = np.arange(TOGETHER) % classes if teacher.config.conditional else np.full(TOGETHER, classes)
        paths = range(number * TOGETHER, (number + 1) * TOGETHER)
        noise = Noise.of(self.seed, "path", rows=paths, device=self.device)
        unit, fresh = noise.normal(*teacher.shape.size), noise.normal(*teacher.shape.size)
        denoiser = denoiser_of(teacher, self.settings, labels, self.device)
        start = samplers.estimated_start(denoiser, self.top * unit, self.top)
        ends = samplers.sample_dpmpp(denoiser, start, self.whole)
        states = self.middle_of(unit, ends, fresh)
        their_ends = samplers.sample_dpmpp(denoiser, states, self.half)
        return unit, ends, states, their_ends, to_device(torch.from_numpy(labels), self.device)

    def middle_of(self, unit: Tensor, end: Tensor, fresh: Tensor) -> Tensor:
        """Where DDPM goes from noise `unit` at the top with the estimate `end` and `fresh` noise, all [B, C, H, W]."""
        levels = torch.tensor([self.top, self.middle], dtype=torch.float64)
        return samplers.sample_ddpm(lambda x, sigma: end, self.top * unit, levels, noise=lambda: fresh)


class FewStepsObjective(ImageObjective):
    """The objective of core/training/loop.py that teaches a copy of a trained network to jump.

    Args:
        teacher: with averaged weights, on the device; its `config.few_steps` says how.
        device: that paths are solved on.
        seed: of the noise of the paths.
    """

    def __init__(self, teacher: TrainedModel, device: torch.device, seed: int) -> None:
        empty = np.zeros((0, *teacher.shape.size), np.uint8), np.zeros(0, np.int64)
        super().__init__(teacher.config, teacher.shape, empty, empty, seed=seed)
        assert teacher.config.few_steps is not None
        self.settings = teacher.config.few_steps
        self.model = copy.deepcopy(teacher.network).requires_grad_(True)
        self.paths = Paths(teacher, self.settings, device, seed)

    def order(self, seed: int) -> DataOrder:
        """The paths in the order in which they are seen."""
        return DataOrder(self.settings.paths, seed)

    def batch(self, indices: Tensor, draws: Draws) -> Batch:
        """The paths `indices` [b]."""
        return Batch(self.paths.at(indices))

    def loss(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        """Squared error of both jumps [b], the mean over pixels."""
        first, second = self._errors(model, *batch.tensors)
        return first + second

    def _errors(
        self, model: Callable[..., Any], unit: Tensor, ends: Tensor, states: Tensor, their_ends: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Squared error of the first jump and of the second, [b] each: of what `Paths.at` gives."""
        top, middle = self.settings.top, self.settings.middle
        first = self.process.denoise(model, top * unit, torch.tensor(top), labels) - ends
        second = self.process.denoise(model, states, torch.tensor(middle), labels) - their_ends
        return first.square().flatten(1).mean(1), second.square().flatten(1).mean(1)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Squared error of the second jump and of the first, on paths that training does not have."""
        model.eval()
        first = -(-self.settings.paths // TOGETHER) * TOGETHER
        once, again = self._errors(model, *self.paths.at(torch.arange(first, first + HELD_OUT)))
        return {"loss": float(again.mean()), "loss/first": float(once.mean())}

    def _drawn(self, model: nn.Module, unit: Tensor, labels: Tensor) -> Tensor:
        """What two steps make of unit noise [B, C, H, W] and labels [B]."""
        labels, top, middle = to_device(labels, unit.device), self.settings.top, self.settings.middle
        fresh = Noise.of(self.paths.seed, "preview", rows=len(unit), device=unit.device)
        return samplers.sample_ddpm(
            lambda x, sigma: self.process.denoise(model, x, sigma, labels),
            top * unit,
            karras_sigmas(2, middle, top),
            noise=lambda: fresh.normal(*unit.shape[1:]),
        )
