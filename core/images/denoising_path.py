"""How the first samples come out of noise: states along the way, for pictures."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core import samplers
from core.images import pictures
from core.processes import parts as parallel

TRAJECTORY_SAMPLES = 20


class DenoisingPath:
    """Keeps every so many steps of the first samples of a batch."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.begin()

    def begin(self) -> None:
        """Forgets what was kept."""
        self.states: list[Tensor] = []  # on the device until the end
        self.sigmas: list[float] = []

    def __call__(self, step: samplers.Step) -> None:
        if step.index % self.every == 0:
            self.states.append(_fading(step)[:TRAJECTORY_SAMPLES])
            self.sigmas.append(step.sigma)

    def arrays(self, images: NDArray[np.uint8]) -> parallel.Arrays:
        """The path with the finished images at its end."""
        finished = images[:TRAJECTORY_SAMPLES]
        states = torch.stack(self.states)[:, : len(finished)].cpu()
        frames = np.stack([*map(pictures.to_uint8, states), finished])
        return {"frames": frames, "sigmas": np.array([*self.sigmas, 0.0])}


def unfinished(step: samplers.Step) -> NDArray[np.uint8]:
    """What samples look like at a step. [B, H, W(, 3)]"""
    return pictures.to_uint8(_fading(step).cpu())


def _fading(step: samplers.Step) -> Tensor:
    """The variance-preserving state, which fades into the image. [B, C, H, W]"""
    return step.x / (1 + step.sigma**2) ** 0.5
