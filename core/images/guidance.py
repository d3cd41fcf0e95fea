"""Guidance: a denoiser that is led away from what knows less, no class or a worse network."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.images.config import ImageSample
from core.images.evidence import Evidence
from core.images.feedback import Feedback
from core.images.model import NoiseProcess, TrainedModel
from core.samplers import Denoiser
from core.transfer import to_device


def guided(
    network: nn.Module,
    process: NoiseProcess,
    labels: Tensor,
    no_class: int,
    *,
    device: torch.device | str = "cpu",
    unconditional: bool | None = None,
    scale: float = 1.0,
    interval: tuple[float, float] = (0.0, float("inf")),
    guide: nn.Module | None = None,
    autoguidance: float = 1.0,
    feedback: float = 0.0,
    evidence: Evidence | None = None,
) -> Denoiser:
    """A denoiser on `device` for `labels` [B], guided away from what knows less: no class, a worse network.

    D = D_class + (scale - 1 + w - 1) (D_class - D_none) + (autoguidance - 1) (D_class - D_guide)

    The first is classifier-free guidance (Ho and Salimans 2022), for interval[0] < sigma <= interval[1] only: it harms
    at high noise and is useless at low (Kynkäänniemi et al. 2024). Both of its terms come from one evaluation of a
    doubled batch. The second is autoguidance (Karras et al. 2024, "Guiding a diffusion model with a bad version of
    itself"), above interval[0]: where both networks err alike, the worse one errs further, and shows the way back.
    w is 1, or with `feedback` a weight for each sample, likewise above interval[0] (core/images/feedback.py); such a
    denoiser follows one path, along which noise levels fall.

    `unconditional` says whether all labels are of no class, which is else looked up, for labels of the host.
    `evidence` sees D_class and D_none wherever it watches. Where there is no guidance that is one evaluation more, in a
    batch of its own, so that samples stay the same to the last bit.
    """
    if unconditional is None:
        unconditional = bool((labels == no_class).all())
    labels = to_device(labels, device)
    nothing = torch.full_like(labels, no_class)
    followed = Feedback(feedback) if feedback and not unconditional else None

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        level = float(sigma)
        scaled = scale != 1 and interval[0] < level <= interval[1] and not unconditional
        following = followed if interval[0] < level else None
        without = None
        if not scaled and following is None:
            denoised = with_class = process.denoise(network, x, sigma, labels)
        else:
            both = process.denoise(network, torch.cat([x, x]), sigma, torch.cat([labels, nothing]))
            with_class, without = both.chunk(2)
            weight: float | Tensor = scale if scaled else 1.0
            if following is not None:
                weight = weight - 1 + following.weight(x, level, with_class, without)[:, None, None, None]
            denoised = without + weight * (with_class - without)
        if evidence is not None and evidence.watches(level) and not unconditional:
            without = process.denoise(network, x, sigma, nothing) if without is None else without
            evidence.see(level, with_class, without)
        if guide is not None and autoguidance != 1 and interval[0] < level:
            denoised = denoised + (autoguidance - 1) * (with_class - process.denoise(guide, x, sigma, labels))
        return denoised

    return denoiser


def denoiser_of(
    trained: TrainedModel,
    settings: ImageSample,
    labels: NDArray[np.int64] | Tensor,
    device: torch.device,
    evidence: Evidence | None = None,
    unconditional: bool | None = None,
) -> Denoiser:
    """The model's denoiser for `labels` [B], guided as `settings` say, and watched by `evidence`."""
    return guided(
        trained.network,
        trained.process,
        labels if isinstance(labels, Tensor) else torch.from_numpy(labels),
        len(trained.shape.class_names),
        device=device,
        unconditional=unconditional,
        scale=settings.guidance,
        interval=(settings.guidance_low, settings.guidance_high),
        guide=trained.guide,
        autoguidance=settings.autoguidance,
        feedback=settings.feedback,
        evidence=evidence,
    )
