"""Images that were drawn, and how the first of them came out of noise: states along the way, for pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core import samplers
from core.images import pictures
from core.processes import parts as parallel

TRAJECTORY_SAMPLES = 20


@dataclass(frozen=True)
class DrawnImages:
    """Images, and how the first of them came out of noise; with `sample.redraw`, the evidence of each for its class."""

    images: NDArray[np.uint8]  # [N, H, W(, 3)]
    frames: NDArray[np.uint8]  # [T, M, H, W(, 3)], the last one finished
    sigmas: NDArray[np.float64]  # [T], of the frames
    evidence: NDArray[np.float32] | None = None  # [N], of what was kept
    redrawn: int = 0  # samples that were drawn again

    def redrawn_at(self, rows: NDArray[np.int64], again: DrawnImages) -> DrawnImages:
        """The same with samples `rows`, rising, drawn `again`: of both draws the one with more evidence is kept."""
        assert self.evidence is not None
        assert again.evidence is not None
        better = again.evidence > self.evidence[rows]
        images, frames, evidence = self.images.copy(), self.frames.copy(), self.evidence.copy()
        images[rows[better]], evidence[rows[better]] = again.images[better], again.evidence[better]
        shown = np.flatnonzero(better & (rows < frames.shape[1]))
        frames[:, rows[shown]] = again.frames[:, shown]
        return replace(self, images=images, frames=frames, evidence=evidence, redrawn=len(rows))


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
