"""How surprising a text is to a Gaussian diffusion over its embeddings: upper bounds on -log p, in nats per token.

`path_bound` is the variational bound in continuous time (Kingma et al. 2021, equation 18; Gulrajani & Hashimoto 2023),
with a noise schedule for each slot of a block (Sahoo et al. 2024, MuLAN):

    -log p(x) <= 1/2 sum_i int e^-gamma_i |x_i - mean_i(z_u)|^2 dgamma_i(u)
                 + E[-log p(x | z_low)] + KL(q(z_high | x) | N(0, I))

For the exact posterior it is -log p(x) along every path; for any other its value depends on the path.

`chain_bound` is that of a chain with finitely many evaluations of the network, of which each draws its step from

    p(z_s | z_t) = sum_v p(v | z_t) q(z_s | z_t, v)                        (each slot by itself; Austin et al. 2021)

As q(z_s | z_t, v) is proportional to q(z_s | v) / q(z_t | v) in v, the step's divergence is a difference of two
cross-entropies CE of the clean tokens:

    KL(q(z_s | z_t, x) | p(z_s | z_t)) = E[CE(l_t) - CE(l_t - evidence(z_t) + evidence(z_s))],  l_t = log p(v | z_t)

and the last evaluation decodes: E[CE(l)]. With more and more steps this becomes the bound along the path.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core.processes import parts as parallel
from core.processes.world import SINGLE_PROCESS, World
from core.randomness import Noise, generator_of
from core.text.reverse_steps import ddpm
from core.text.schedule import NoisePath, alpha_sigma, diffuse, evidence

TokenPosterior = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits [B, L, V] of clean tokens, given tokens [B, L] (of which each block may read those before it), z [B, L, d] and
gamma [B, L]."""

Term = Callable[[Tensor, Tensor, Noise], Tensor]  # tokens [B, L] and times u [B, blocks] to nats [B, L]
BATCH = 4096  # tokens evaluated together


@torch.no_grad()
def path_bound(
    posterior: TokenPosterior,
    tokens: Tensor,
    embeddings: Tensor,
    path: NoisePath,
    seed: int = 0,
    draws: int = 8,
    world: World = SINGLE_PROCESS,
) -> Tensor:
    """The bound along `path` for each row of tokens [B, L]: nats per token, float64 [B].

    Args:
        posterior: logits of clean tokens.
        tokens: rows of whole blocks, each bounded given the text before it.
        embeddings: [V, d]; certain at the path's lowest noise level, lost at its highest.
        draws: times for each block, spread evenly over the path.
    """

    def integrand(rows: Tensor, u: Tensor, noise: Noise) -> Tensor:
        x, gamma, slope = embeddings[rows], path.gamma(u).flatten(1), path.slope(u).flatten(1)
        mean = posterior(rows, diffuse(x, gamma, noise.normal(*x.shape[1:])), gamma).softmax(dim=-1) @ embeddings
        return 0.5 * torch.exp(-gamma) * slope * (x - mean).square().sum(dim=-1)

    def reconstruction(rows: Tensor, u: Tensor, noise: Noise) -> Tensor:
        x, gamma = embeddings[rows], torch.full(rows.shape, path.warp.low, device=rows.device)
        return _cross_entropy(posterior(rows, diffuse(x, gamma, noise.normal(*x.shape[1:])), gamma), rows)

    integral = _mean_over_times(integrand, tokens, path.block, draws, seed, world)
    return integral + _mean_over_times(reconstruction, tokens, path.block, 1, seed, world) + _prior(path, embeddings)


@torch.no_grad()
def chain_bound(
    posterior: TokenPosterior,
    tokens: Tensor,
    embeddings: Tensor,
    path: NoisePath,
    steps: int,
    seed: int = 0,
    draws: int = 8,
    world: World = SINGLE_PROCESS,
) -> Tensor:
    """The bound of the chain with `steps` evaluations for each block along `path`; else as `path_bound`.

    At most `draws` of the steps are measured for each block, spread evenly over the path.
    """
    levels = path.grid(steps)

    def step(rows: Tensor, u: Tensor, noise: Noise) -> Tensor:
        place = (u * steps).long().clamp(max=steps - 1)  # [B, blocks]
        gamma, after = levels[place].flatten(1), levels[place + 1].flatten(1)
        x = embeddings[rows]
        z, unit = diffuse(x, gamma, noise.normal(*x.shape[1:])), noise.normal(*x.shape[1:])
        lower = ddpm(z, x, gamma[..., None], after[..., None], unit)  # of q(z_s | z_t, x)
        logits = posterior(rows, z, gamma)
        told = logits - evidence(z, gamma, embeddings) + evidence(lower, after, embeddings)
        # What the noise of z_s does to CE(told) in first order has mean 0 and is most of its variance when steps are
        # small. In large steps it is too much; any factor that does not know the noise leaves the mean as it is.
        error = x - logits.softmax(dim=-1) @ embeddings
        signal = torch.exp(-after) - torch.exp(-gamma)
        control = signal.sqrt() * (unit * error).sum(dim=-1) / (1 + 0.5 * signal * error.square().sum(dim=-1))
        decodes = (place == steps - 1).repeat_interleave(path.block, dim=1)
        rest = torch.where(decodes, 0.0, _cross_entropy(told, rows) + control)
        return steps * (_cross_entropy(logits, rows) - rest)

    return _mean_over_times(step, tokens, path.block, min(steps, draws), seed, world) + _prior(path, embeddings)


def _mean_over_times(term: Term, tokens: Tensor, block: int, draws: int, seed: int, world: World) -> Tensor:
    """Mean over times u in [0, 1) and slots of `term`: [B].

    A block's times are `draws` equal steps apart; where they begin is stratified over rows and blocks. Draws and
    batches of rows are divided over `world` and added in order: the result is the same for any number of processes.
    """
    rows, blocks = len(tokens), tokens.shape[1] // block
    generator = generator_of(seed, "times")
    strata = (torch.randperm(rows, generator=generator) + torch.rand(rows, generator=generator)) / rows
    begin = (strata[:, None] + torch.arange(blocks) / blocks) % 1
    batches = torch.arange(rows).split(max(1, BATCH // tokens.shape[1]))

    def part(index: int) -> parallel.Arrays:
        draw, batch = divmod(index, len(batches))
        picked = batches[batch]
        u = ((begin[picked] + draw) / draws).to(tokens.device)
        nats = term(
            tokens[picked.to(tokens.device)],
            u,
            Noise.of(seed, "noise", draw, rows=picked.tolist(), device=tokens.device),
        )
        return {"nats": nats.double().mean(dim=1).cpu().numpy()}

    parts = [one["nats"] for one in parallel.arrays(part, draws * len(batches), world)]
    return torch.from_numpy(np.concatenate(parts).reshape(draws, rows).mean(axis=0))


def _prior(path: NoisePath, embeddings: Tensor) -> float:
    """KL(q(z_high | x) | N(0, I)) of a token; all embeddings have the same length."""
    alpha, sigma = alpha_sigma(torch.tensor(path.warp.high, dtype=torch.float64))
    square, size = embeddings[0].double().square().sum().cpu(), embeddings.shape[1]
    return float(0.5 * (alpha**2 * square + size * (sigma**2 - 1 - 2 * sigma.log())))


def _cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    return F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)
