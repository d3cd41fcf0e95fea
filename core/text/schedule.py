"""Noise levels of embeddings, the evidence in a noisy embedding, and the time warp.

gamma = log(sigma^2 / alpha^2) of the variance-preserving process z = alpha x + sigma noise, alpha^2 + sigma^2 = 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from core.processes import world as distributed
from core.text.config import ProcessConfig
from core.training.objective import Statistic

Count = TypeVar("Count", int, Tensor)
OBSERVATIONS = 200.0  # after so many, an older one weighs 1/e in the histogram of a bin


def alpha_sigma(gamma: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma of the variance-preserving process, shaped as gamma."""
    return torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()


def diffuse(x: Tensor, gamma: Tensor, noise: Tensor) -> Tensor:
    """z [B, L, d] of embeddings x [B, L, d] at gamma [B, L]."""
    alpha, sigma = alpha_sigma(gamma)
    return alpha[..., None] * x + sigma[..., None] * noise


def evidence(z: Tensor, gamma: Tensor, embeddings: Tensor) -> Tensor:
    """log p(z | token), up to a constant of the tokens: [B, L, V] of z [B, L, d] and embeddings [V, d].

    -|z - alpha e|^2 / (2 sigma^2) with all |e| equal leaves (alpha / sigma^2) z . e. Added to the logits of a prior it
    gives the exact posterior, so that the network has to learn the prior in context alone (Plaid's output prior).
    """
    alpha, sigma = alpha_sigma(gamma)
    return (alpha / sigma**2)[..., None] * (z @ embeddings.T)


def lane_length(block: Count, lanes: int) -> Count:
    """Slots of a lane, a part of a block that is written beside the others; the last lane may be shorter."""
    return (block + lanes - 1) // lanes


def fewest_lanes(trained: Iterable[int], block: int, steps: int) -> int:
    """As few lanes as let `steps` get a block done slot by slot, of those that were trained; the most if none do."""
    known = sorted(set(trained))
    return next((lanes for lanes in known if lane_length(block, lanes) <= steps), known[-1])


def lane_tilt(tilt: float, block: int, lanes: int) -> float:
    """`tilt`, or the largest that has a meaning: with more a slot would wait after the one before it is done."""
    return min(tilt, float(lane_length(block, lanes) - 1))


def tilted(u: Tensor, block: int, tilt: float | Tensor, lanes: int = 1) -> Tensor:
    """Times [..., block] of the slots of a block at block times u [...], both from 1 (noise) to 0 (clean).

    Slots on the left of each lane run ahead, as in AR-Diffusion (Wu et al. 2023): with tilt 0 all are alike, with a
    tilt of the lane's length - 1 a slot starts when the one before it is done, which is autoregressive generation.
    """
    lane = lane_length(block, lanes)
    return delayed(u, torch.arange(block, device=u.device) % lane / max(1, lane - 1), tilt)


def delayed(u: Tensor, place: Tensor, tilt: float | Tensor) -> Tensor:
    """Times [..., slots] of slots at `place` [slots] along their lane, from 0 to 1; as `tilted`."""
    return (u[..., None] * (1 + tilt) - tilt * (1 - place)).clamp(0, 1)


def histogram(index: Tensor, values: Tensor, bins: int) -> Tensor:
    """How many of index [N] fall into each bin, and the sums of their values [N]: [2, bins]. Those at `bins` are left
    out.

    On CUDA a matrix product: `bincount` would wait for the GPU, and `index_add_` adds in any order.
    """
    if index.is_cuda:
        with torch.autocast("cuda", enabled=False):
            inside = (index[:, None] == torch.arange(bins, device=index.device)).to(values.dtype)  # [N, bins]
            return torch.stack((torch.ones_like(values), values)) @ inside
    count = torch.bincount(index, minlength=bins + 1).to(values.dtype)
    total = torch.zeros(bins + 1, dtype=values.dtype, device=index.device).index_add_(0, index, values)
    return torch.stack((count, total))[:, :bins]


def running_sum(values: Tensor) -> Tensor:
    """Cumulative sums of values [N]; on CUDA one sum a row, since its `cumsum` differs from call to call."""
    if not values.is_cuda:
        return values.cumsum(0)
    return torch.ones(len(values), len(values), device=values.device).tril().mul(values).sum(1)


class Warp(Statistic):
    """Draws noise levels where the loss changes, in training and for the sampling grid alike (CDCD, section 4).

    A histogram of the loss over gamma is kept in buffers, so it is part of every checkpoint. The density of gamma is
    the slope of the loss mixed with some uniform density: equal steps in u are then equal steps of information.
    """

    losses: Tensor
    counts: Tensor
    observed: Tensor

    def __init__(self, config: ProcessConfig) -> None:
        super().__init__()
        self.low, self.high, self.uniform = config.gamma_min, config.gamma_max, config.warp_uniform
        self.register_buffer("losses", torch.zeros(config.warp_bins))
        self.register_buffer("counts", torch.zeros(config.warp_bins))
        self.register_buffer("observed", torch.zeros(2, config.warp_bins), persistent=False)

    @torch.no_grad()
    def observe(self, gamma: Tensor, losses: Tensor, hidden: Tensor | None = None) -> None:
        """Notes the losses of tokens at noise levels `gamma`, for `settle`; all of one shape.

        Args:
            hidden: bool, which tokens count; None: all.
        """
        bins = len(self.losses)
        index = ((gamma - self.low) / (self.high - self.low) * bins).long().clamp(0, bins - 1)
        losses = losses.detach().float()
        if hidden is not None:
            index, losses = torch.where(hidden, index, bins), torch.where(hidden, losses, 0.0)
        self.observed += histogram(index.flatten(), losses.flatten(), bins)

    @torch.no_grad()
    def settle(self, keep: Tensor) -> None:
        """Takes what was noted, in all processes, into the histogram; nothing changes unless `keep`."""
        count, total = torch.where(keep, distributed.sum_over_processes(self.observed), 0.0)
        self._take(count, total)
        self.observed.zero_()

    def _take(self, count: Tensor, total: Tensor) -> None:
        share = torch.where(self.counts > 0, 1 - torch.exp(-count / OBSERVATIONS), (count > 0).float())
        self.losses.lerp_(total / count.clamp_min(1), share)
        self.counts += count

    def distribution(self) -> Tensor:
        """F at the edges of the bins: increasing from 0 to 1, [bins + 1]. Uniform until every bin was observed."""
        bins = len(self.losses)
        uniform = torch.linspace(0, 1, bins + 1, device=self.losses.device)
        slope = self.losses.diff().clamp_min(0)
        slope = torch.cat((slope[:1], slope))
        slope = F.avg_pool1d(F.pad(slope[None, None], (2, 2), mode="replicate"), 5, 1)[0, 0]
        density = (1 - self.uniform) * slope / slope.sum().clamp_min(1e-9) + self.uniform / bins
        distribution = F.pad(running_sum(density), (1, 0))
        return torch.where((self.counts > 0).all(), distribution / distribution[-1], uniform)

    def gamma(self, u: Tensor) -> Tensor:
        """The noise level at quantile u in [0, 1]: the inverse of F, by linear interpolation."""
        distribution = self.distribution()
        index = self._bin(distribution, u)
        inside = (u - distribution[index]) / (distribution[index + 1] - distribution[index])
        return self.low + (self.high - self.low) * (index + inside.clamp(0, 1)) / len(self.losses)

    def slope(self, u: Tensor) -> Tensor:
        """d gamma / d u at quantile u in [0, 1]."""
        distribution = self.distribution()
        index = self._bin(distribution, u)
        return (self.high - self.low) / len(self.losses) / (distribution[index + 1] - distribution[index])

    def _bin(self, distribution: Tensor, u: Tensor) -> Tensor:
        return (torch.searchsorted(distribution, u.contiguous(), right=True) - 1).clamp(0, len(self.losses) - 1)


@dataclass(frozen=True)
class NoisePath:
    """How the slots of a block get from noise to clean, over the block's time u from 1 to 0.

    Training draws its noise levels on paths, sampling goes along one, and a bound is an integral along one.
    """

    warp: Warp
    block: int = 1
    tilt: float = 0.0
    lanes: int = 1

    def gamma(self, u: Tensor) -> Tensor:
        """Noise levels [..., block] at times u [...]."""
        return self.warp.gamma(self._times(u))

    def slope(self, u: Tensor) -> Tensor:
        """d gamma / d u [..., block] at times u [...]; 0 where a slot waits or is done."""
        time = self._times(u)
        moves = (time > 0) & (time < 1)
        return (1 + self.tilt) * self.warp.slope(time) * moves

    def grid(self, steps: int) -> Tensor:
        """Noise levels [steps + 1, block] of so many equal steps, from gamma_max down to gamma_min."""
        return self.gamma(torch.linspace(1, 0, steps + 1, device=self.warp.losses.device))

    @classmethod
    def sampled(
        cls, warp: Warp, process: ProcessConfig, block: int, steps: int, tilt: float | None = None
    ) -> NoisePath:
        """That of a block which is done in `steps`; `tilt` None is the largest that was trained.

        In as few lanes as the steps allow: at a tilt of the lane's length - 1 a step decides no two neighbours at once.
        """
        lanes = fewest_lanes(process.lanes, block, steps)
        return cls(warp, block, lane_tilt(process.tilt[1] if tilt is None else tilt, block, lanes), lanes)

    def _times(self, u: Tensor) -> Tensor:
        return tilted(u, self.block, self.tilt, self.lanes)
