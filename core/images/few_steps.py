"""From a diffusion model to one that draws in one step or two: regression on where the paths of its sampling end.

A path goes from noise to an image by an ODE (`dpmpp`) with all guidance, so its end is a function of noise and class,
and regression on it has no average to blur (Luhman and Luhman 2021). The network begins with the teacher's weights. It
says where the path ends from two places: from noise alone, and from a state in the middle. That is the path's for half
of the examples; for the others it is where DDIM comes by the network's own first jump, which is beside the path. So it
is sampled by DDIM along [top, middle, 0], without guidance.
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
    """Noise, a state in the middle, the end and the class of the teacher's paths, solved when they are asked for."""

    def __init__(self, teacher: TrainedModel, settings: FewSteps, device: torch.device, seed: int) -> None:
        self.teacher, self.device, self.seed = teacher, device, seed
        self.sigmas = karras_sigmas(settings.steps, LOWEST, settings.top)
        self.place = int((self.sigmas[:-1] / settings.middle).log().abs().argmin())
        self.sigmas[self.place] = settings.middle  # which is then a level of the path
        self.settings = ImageSample(
            guidance=settings.guidance,
            guidance_low=settings.guidance_low,
            guidance_high=settings.guidance_high,
            autoguidance=settings.autoguidance,
        )
        self._solved: dict[int, tuple[Tensor, ...]] = {}

    def at(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Noise, states and ends [b, C, H, W] and labels [b] of the paths `indices` [b], on the device."""
        parts = torch.div(indices, TOGETHER, rounding_mode="floor")
        solved = {int(part): self._part(int(part)) for part in parts.unique()}
        rows = [solved[part] for part in parts.tolist()]
        places = (indices % TOGETHER).tolist()
        return tuple(torch.stack([row[kind][i] for row, i in zip(rows, places, strict=True)]) for kind in range(4))

    def _part(self, number: int) -> tuple[Tensor, ...]:
        if number not in self._solved:
            self._solved[number] = self._solve(number)
        return self._solved[number]

    @torch.no_grad()
    def _solve(self, number: int) -> tuple[Tensor, ...]:
        """Paths [number x TOGETHER, (number + 1) x TOGETHER), classes in turn."""
        teacher, top = self.teacher, float(self.sigmas[0])
        classes = len(teacher.shape.class_names)
        labels = np.arange(TOGETHER) % classes if teacher.config.conditional else np.full(TOGETHER, classes)
        paths = range(number * TOGETHER, (number + 1) * TOGETHER)
        states: list[Tensor] = []
        unit = Noise.of(self.seed, "path", rows=paths, device=self.device).normal(*teacher.shape.size)
        denoiser = denoiser_of(teacher, self.settings, labels, self.device)
        start = samplers.estimated_start(denoiser, top * unit, top)
        ends = samplers.sample_dpmpp(denoiser, start, self.sigmas, callback=lambda step: states.append(step.x))
        return unit, states[self.place], ends, to_device(torch.from_numpy(labels), self.device)


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
        """The paths `indices` [b], and which of them go on from where the network itself has come."""
        own = to_device(draws.uniform() < 0.5, draws.device)
        return Batch((*self.paths.at(indices), own))

    def loss(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        """Squared error of both jumps [b], the mean over pixels."""
        unit, states, ends, labels, own = batch.tensors
        first = self._jump(model, self.settings.top * unit, self.settings.top, labels)
        state = torch.where(own[:, None, None, None], self._state(unit, first.detach()), states)
        second = self._jump(model, state, self.settings.middle, labels)
        return sum((guess - ends).square().flatten(1).mean(1) for guess in (first, second))  # type: ignore[return-value]

    def _jump(self, model: Callable[..., Any], x: Tensor, sigma: float, labels: Tensor) -> Tensor:
        """Where the path through x [B, C, H, W] at `sigma` ends."""
        return self.process.denoise(model, x, torch.tensor(sigma), labels)

    def _state(self, unit: Tensor, end: Tensor) -> Tensor:
        """Where DDIM comes from noise `unit` with the estimate `end`."""
        return end + self.settings.middle * (unit - end / self.settings.top)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Squared error of two steps on paths that training does not have."""
        model.eval()
        first = -(-self.settings.paths // TOGETHER) * TOGETHER
        unit, _, ends, labels = self.paths.at(torch.arange(first, first + HELD_OUT))
        once, twice = self._jumps(model, unit, labels)
        return {"loss": float((twice - ends).square().mean()), "loss/one step": float((once - ends).square().mean())}

    def _drawn(self, model: nn.Module, unit: Tensor, labels: Tensor) -> Tensor:
        """What two steps make of unit noise [B, C, H, W] and labels [B]."""
        return self._jumps(model, unit, to_device(labels, unit.device))[1]

    def _jumps(self, model: nn.Module, unit: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Where one step from noise, and a second one, end."""
        once = self._jump(model, self.settings.top * unit, self.settings.top, labels)
        return once, self._jump(model, self._state(unit, once), self.settings.middle, labels)
