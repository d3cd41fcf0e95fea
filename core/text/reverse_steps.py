"""One reverse step of noise. All go by what is taken for the clean embedding, so they share one signature.

That is the denoised mean; of the mixture a token drawn from the network's law. Then a step has the law

    p(z_s | z_t) = sum_v p(v | z_t) q(z_s | z_t, v)

of the chain whose likelihood core/text/bound.py bounds. A mean is no token: where a step takes a slot from noise to
clean at once, it lies between all that the token might have been.
"""

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


MIXTURE = "mixture"
STEPS: dict[str, Step] = {MIXTURE: ddpm, "ddpm": ddpm, "ddim": ddim, "q": q}
