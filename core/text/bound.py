"""The variational bound of a Gaussian diffusion over embeddings (Kingma et al. 2021; Gulrajani & Hashimoto 2023).

-log p(x) <= E[-log p(x | z_low)] + 1/2 integral e^-gamma |x - mean(z_gamma)|^2 dgamma + KL(q(z_high | x) | N(0, I))

For the exact posterior of independent tokens it is their entropy, which is how it is tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from core.processes import parts as parallel
from core.processes.world import SINGLE_PROCESS, World
from core.text.schedule import alpha_sigma, diffuse


@dataclass(frozen=True)
class Bound:
    """A bound in nats per token: the mean over all tokens, and that of each row, float64 [B]."""

    mean: float
    rows: NDArray[np.float64]


TokenPosterior = Callable[[Tensor, Tensor], Tensor]  # z [B, L, d] and gamma [B, L] to logits [B, L, V]


@torch.no_grad()
def variational_bound(
    posterior: TokenPosterior,
    tokens: Tensor,
    embeddings: Tensor,
    low: float,
    high: float,
    generator: torch.Generator,
    draws: int = 8,
    world: World = SINGLE_PROCESS,
) -> Bound:
    """The bound in nats per token of `tokens` [B, L], given the logits of a posterior.

    Noise levels are divided over `world`; their terms are added in order, so the bound is the same for any number of
    processes.

    Args:
        posterior: logits of clean tokens; noise levels are constant along a row.
        embeddings: [V, d].
        low, high: the range of gamma; the embeddings must be certain at `low` and lost at `high`.
        draws: noise levels for each row, stratified over the range.
    """
    x = embeddings[tokens]
    rows = len(tokens)
    levels, noises = [torch.full((rows,), low)], [torch.randn(x.shape, generator=generator)]
    for index in range(draws):
        strata = (torch.randperm(rows, generator=generator) + torch.rand(rows, generator=generator)) / rows
        levels.append(low + (high - low) * ((strata + index) / draws))
        noises.append(torch.randn(x.shape, generator=generator))

    def term(index: int) -> tuple[float, list[float]]:
        """Of level 0 the reconstruction, of each other one its share of the integral's mean; and that of each row."""
        gamma = levels[index].to(x.device)[:, None].expand(tokens.shape)
        logits = posterior(diffuse(x, gamma, noises[index].to(x.device)), gamma)
        if index == 0:
            flat, ids = logits.flatten(0, 1).double(), tokens.flatten()
            each = F.cross_entropy(flat, ids, reduction="none").view(tokens.shape)
            return float(F.cross_entropy(flat, ids)), each.mean(dim=1).tolist()
        mean = logits.softmax(dim=-1) @ embeddings
        error = (x - mean).square().sum(dim=-1)
        weighted = (torch.exp(-gamma) * error).double()
        return float(weighted.mean() / draws), (weighted.mean(dim=1) / draws).tolist()

    (reconstruction, first), *terms = parallel.values(term, draws + 1, world)
    total, by_row = sum(value for value, _ in terms), np.sum([each for _, each in terms], axis=0)
    alpha, sigma = alpha_sigma(torch.tensor(high, dtype=torch.float64))
    size = embeddings.shape[1]
    squares = embeddings.double().square().sum(dim=-1)[tokens].mean()
    prior = 0.5 * (alpha**2 * squares + size * (sigma**2 - 1 - 2 * sigma.log()))
    half = 0.5 * (high - low)
    return Bound(float(reconstruction + half * total + prior), np.array(first) + half * by_row + float(prior))


def unigram_posterior(unigram: Tensor, embeddings: Tensor) -> TokenPosterior:
    """The exact posterior when tokens are independent: what can be known without context."""
    from core.text.schedule import evidence

    return lambda z, gamma: unigram + evidence(z, gamma, embeddings)
