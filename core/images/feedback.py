"""Feedback guidance: each sample is guided as much as its own path needs (Koulischer et al. 2025).

A network that takes one class for another draws p_network(x|class) = (1 - share) p(x|class) + share p(x): that share is
of any class. What undoes it is guidance of weight r / (r - share), where r = p_network(x|class) / p(x): one where a
sample is plainly of its class, more the less it looks like it. r is gathered along the path: gamma x, where
gamma = 1/sigma^2, moves by D dgamma plus noise of variance dgamma, so

    d ln r = (D_class - D_none) d(gamma x) - (|D_class|^2 - |D_none|^2) dgamma / 2

by Girsanov's theorem, whatever leads the path, if noise is new all the way; for a sampler's steps it is an estimate.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from core.images.evidence import ratio_of

MOST = 5.0  # weight; a sample that is lost to another class would take any


class _Seen(NamedTuple):
    """An evaluation: gamma, gamma x [B, C, H, W], and the derivative of ln r by gamma as slope x0 + offset."""

    gamma: float
    observed: Tensor
    slope: Tensor  # [B, C, H, W]
    offset: Tensor  # [B]


class Feedback:
    """Follows a batch along its path, noise levels falling.

    Args:
        share: of the network's samples of a class, those that are taken to be of any; 0 to 1.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.log_ratio: Tensor | None = None  # ln r, float32 [B]
        self._seen: _Seen | None = None

    def weight(self, x: Tensor, sigma: float, with_class: Tensor, without: Tensor) -> Tensor:
        """The weight of guidance at `sigma`, 1 to `MOST`: float32 [B]; 1 is none. x, D_class, D_none: [B, C, H, W].

        A path begins wherever no level above was seen: ln r is 0 there.
        """
        gamma = 1 / sigma**2
        now = _Seen(gamma, gamma * x.float(), *ratio_of(with_class, without))
        if self._seen is None or self.log_ratio is None or now.gamma <= self._seen.gamma:
            self.log_ratio = torch.zeros(len(x), device=x.device)
        else:
            self.log_ratio = self.log_ratio + _growth(self._seen, now)
        self._seen = now
        astray = self.share * (-self.log_ratio).exp()  # of what the network draws here
        return 1 / (1 - astray).clamp(min=1 / MOST)


def _growth(before: _Seen, now: _Seen) -> Tensor:
    """How much ln r grows from one evaluation to the next, float32 [B]."""
    along = (before.slope * (now.observed - before.observed)).flatten(1).sum(1)
    return along + (now.gamma - before.gamma) * before.offset
