"""One reverse step of noise, three ways. All need the denoised mean alone, so they share one signature."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from core.text.schedule import alpha_sigma

Step = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def ddim(z: Tensor, mean: Tensor, gamma: Tensor, after: Tensor, noise: Tensor) -> Tensor:
    """Deterministic (Song et al. 2021): the noise that the denoiser implies is kept.

    Args:
        z: noisy embeddings [B, L, d] at noise levels `gamma`, a scalar or [L, 1].
        mean: the denoised embeddings.
        after: the lower noise levels to go to.
        noise: standard normals shaped as z; not used here.
    """
    alpha, sigma = alpha_sigma(gamma)
    next_alpha, next_sigma = alpha_sigma(after)
    return next_alpha * mean + next_sigma * (z - alpha * mean) / sigma


def ddpm(z: Tensor, mean: Tensor, gamma: Tensor, after: Tensor, noise: Tensor) -> Tensor:
    """Ancestral: the exact posterior q(z_after | z, x0 = mean) (Kingma et al. 2021, equation 34)."""
    alpha, _ = alpha_sigma(gamma)
    next_alpha, next_sigma = alpha_sigma(after)
    fresh = -torch.expm1(after - gamma)
    return next_alpha * (z / alpha * (1 - fresh) + fresh * mean) + next_sigma * fresh.sqrt() * noise


def q(z: Tensor, mean: Tensor, gamma: Tensor, after: Tensor, noise: Tensor) -> Tensor:
    """Noises the denoised mean afresh, forgetting z: leaves the averages between modes that ancestral steps stay in."""
    next_alpha, next_sigma = alpha_sigma(after)
    return next_alpha * mean + next_sigma * noise


STEPS: dict[str, Step] = {"ddim": ddim, "ddpm": ddpm, "q": q}
