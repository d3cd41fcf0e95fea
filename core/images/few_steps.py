"""From a diffusion model to one that draws in two steps: consistency distillation (Song et al. 2023, algorithm 2).

f(x, sigma) is the network's estimate of a clean image, as before. It learns to give the same image all along a path of
the teacher's probability flow, so that one evaluation reaches the end of the path, where a denoiser's estimate is the
mean of all ends. The teacher's guidance becomes part of f.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.images import pictures
from core.images.config import FewSteps, ImageModel
from core.images.model import ImageShape
from core.images.objective import PREVIEW_CLASSES, ImageObjective, Split
from core.noise import karras_sigmas
from core.randomness import Draws
from core.samplers import SampleNoise, sample_ddpm
from core.training.objective import Batch
from core.transfer import to_device

FIRST, LAST = 8, 64  # levels of a path: few at first, since errors add up from its clean end; twice as many each time
SIGMA_MIN, SIGMA_MAX = 0.02, 40.0
HUBER = 0.03  # times the square root of the pixels: errors below it count by their square (Song and Dhariwal 2023)


class FewStepsObjective(ImageObjective):
    """Teaches a copy of a trained network to jump.

    Args:
        settings: the teacher's guidance, and the pace.
        teacher: averaged weights of the training before.
        guide: those of early in it, for autoguidance; empty without.
    """

    def __init__(
        self,
        config: ImageModel,
        shape: ImageShape,
        train: Split,
        validation: Split,
        *,
        settings: FewSteps,
        teacher: nn.Module,
        guide: nn.Module | None = None,
    ) -> None:
        super().__init__(config, shape, train, validation)
        self.settings, self.teacher, self.guide = settings, teacher, guide
        self.model.load_state_dict(teacher.state_dict())
        self._held_out = [torch.from_numpy(np.array(array[:256])) for array in validation]

    def batch(self, indices: Tensor, draws: Draws) -> Batch:
        """Training images with their classes, two neighbouring noise levels of a path, and noise."""
        return self._batch(self.pixels(indices, draws.device), self.conditioned(self.labels(indices)), draws)

    def _batch(self, pixels: Tensor, labels: Tensor, draws: Draws) -> Batch:
        count = levels(draws.examples_seen, self.settings.doubling)
        path = karras_sigmas(count, SIGMA_MIN, SIGMA_MAX).flip(0).float()  # rising, from 0
        place = 1 + (draws.stratified() * count).long().clamp(max=count - 1)
        given = (to_device(values, draws.device) for values in (labels, path[place], path[place - 1]))
        return Batch((pixels, *given, draws.normal(*self.shape.size)))

    def loss(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        """How far apart the ends are that the network sees from two places of one path: pseudo-Huber, [b]."""
        pixels, labels, sigma, lower, unit = batch.tensors
        clean = self.process.encoded(pictures.to_float(pixels))
        x = clean + sigma[:, None, None, None] * unit
        with torch.no_grad():
            end = self._guided(x, sigma, labels)
            below = end + (lower / sigma)[:, None, None, None] * (x - end)  # Euler's step of the flow
            jumped = self.process.denoise(model, below, lower.clamp_min(SIGMA_MIN), labels)
            target = torch.where((lower > 0)[:, None, None, None], jumped, end)
        error = (self.process.denoise(model, x, sigma, labels) - target).flatten(1)
        scale = HUBER * error.shape[1] ** 0.5
        return (error.square().sum(1) + scale**2).sqrt() - scale

    def _guided(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """The teacher's estimate of the clean image, guided away from no class and from its worse self."""
        s = self.settings
        with_class = denoised = self.process.denoise(self.teacher, x, sigma, labels)
        if s.guidance != 1:
            without = self.process.denoise(self.teacher, x, sigma, torch.full_like(labels, self.no_class))
            weight = (s.guidance - 1) * ((sigma > s.guidance_low) & (sigma <= s.guidance_high))
            denoised = denoised + weight[:, None, None, None] * (with_class - without)
        if self.guide is not None and s.autoguidance != 1:
            weight = (s.autoguidance - 1) * (sigma > s.guidance_low)
            worse = self.process.denoise(self.guide, x, sigma, labels)
            denoised = denoised + weight[:, None, None, None] * (with_class - worse)
        return denoised

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """The loss on validation images at the finest levels, with the same noise every time."""
        model.eval()
        pixels, labels = self._held_out
        device = next(model.parameters()).device
        draws = Draws(0, LAST * self.settings.doubling, 0, len(pixels), len(pixels), device)
        batch = self._batch(to_device(pixels, device), self.conditioned(labels), draws)
        return {"loss": float(self.loss(model, batch).mean())}

    @torch.no_grad()
    def preview(self, model: nn.Module) -> tuple[str, bytes]:
        """A small grid of samples of two steps, a column a class, always from the same noise."""
        model.eval()
        device = next(model.parameters()).device
        classes = min(PREVIEW_CLASSES, self.no_class) if self.config.conditional else 8
        labels = to_device(self.conditioned(torch.arange(classes).repeat(4)), device)
        noise = SampleNoise(range(len(labels)), self.shape.size, device)
        drawn = sample_ddpm(
            lambda x, sigma: self.process.denoise(model, x, sigma, labels),
            SIGMA_MAX * noise(),
            torch.tensor([SIGMA_MAX, 0.8, 0.0]),
            noise=noise,
        )
        return ".png", pictures.png(pictures.grid(pictures.to_uint8(drawn.cpu()), columns=classes))


def levels(examples_seen: int, doubling: int) -> int:
    """Levels of a path after so many examples."""
    return min(LAST, FIRST << min(16, examples_seen // doubling))
