"""How much a sample itself speaks for the class that was asked for, from evaluations that guidance makes anyway.

    s = 1/2 sum over its path (|x0 - D_none|^2 - |x0 - D_class|^2) d(1/sigma^2)  ~  log p(x0 | class) / p(x0)

In expectation over noise that is the log-likelihood ratio (Guo, Shamai and Verdú 2005: the derivative of information by
1/sigma^2 is half the squared error; Kong et al. 2023). A path's noise is its own, and levels outside `LOW` to `HIGH`
say little: above, nothing of the class is decided yet, below, both denoisers see the same.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LOW, HIGH = 0.3, 8.0  # sigma


class Evidence:
    """Gathers s of a batch while it is drawn, in the memory of one batch: s is linear in x0 but for what x0 has not.

    |x0 - D_none|^2 - |x0 - D_class|^2 = 2 x0 (D_class - D_none) + |D_none|^2 - |D_class|^2
    """

    def __init__(self, sigmas: Tensor, low: float = LOW, high: float = HIGH) -> None:
        """For a path along `sigmas`, falling [steps + 1]. The cell of a level ends midway, by ratio, to the next."""
        levels = [_level(sigma) for sigma in sigmas if sigma > 0]
        inner = [math.sqrt(a * b) for a, b in pairwise(levels)]
        edges = [min(max(edge, low), high) for edge in (high, *inner, low)]
        self._cells = {
            level: 1 / below**2 - 1 / above**2
            for level, (above, below) in zip(levels, pairwise(edges), strict=True)
            if below < above
        }
        self.begin()

    def begin(self) -> None:
        """Forgets what was seen."""
        self._slope: Tensor | None = None  # [B, C, H, W]
        self._offset: Tensor | None = None  # [B]
        self._last: tuple[float, Tensor, Tensor] | None = None

    def watches(self, sigma: float) -> bool:
        """Whether a noise level has a part in s."""
        return _level(sigma) in self._cells

    def see(self, sigma: float, with_class: Tensor, without: Tensor) -> None:
        """Takes in D_class and D_none [B, C, H, W] at a level; of several evaluations at one level the last counts."""
        sigma = _level(sigma)
        if self._last is not None and self._last[0] != sigma:
            self._settle()
        self._last = sigma, *ratio_of(with_class, without)

    def _settle(self) -> None:
        if self._last is None:
            return
        sigma, slope, offset = self._last
        cell = self._cells[sigma]
        self._slope = cell * slope if self._slope is None else self._slope + cell * slope
        self._offset = cell * offset if self._offset is None else self._offset + cell * offset
        self._last = None

    def gathered(self) -> tuple[Tensor, ...]:
        """What was seen of a path: the slope [B, C, H, W] and offset [B] of s in x0, or nothing."""
        self._settle()
        return () if self._slope is None or self._offset is None else (self._slope, self._offset)

    def take(self, slope: Tensor, offset: Tensor) -> None:
        """Takes what was gathered of a path, in place of seeing it."""
        self._slope, self._offset, self._last = slope, offset, None

    def of(self, finished: Tensor) -> Tensor:
        """s of the finished images x0 [B, C, H, W], in nats, float32 [B] on the CPU; 0 where no level was seen."""
        self._settle()
        if self._slope is None or self._offset is None:
            return torch.zeros(len(finished))
        return (self._slope.cpu() * finished).flatten(1).sum(1) + self._offset.cpu()


def ratio_of(with_class: Tensor, without: Tensor) -> tuple[Tensor, Tensor]:
    """(|x0 - D_none|^2 - |x0 - D_class|^2) / 2 as slope x0 + offset, of D_class and D_none [B, C, H, W].

    Returns:
        slope float32 [B, C, H, W], offset float32 [B]
    """
    with_class, without = with_class.float(), without.float()
    return with_class - without, (without.square() - with_class.square()).flatten(1).sum(1) / 2


def _level(sigma: float | Tensor) -> float:
    """A noise level as fp32 has it, which is how samplers hand it to a denoiser."""
    return float(np.float32(sigma))


def lowest(evidence: NDArray[np.float32], conditional: NDArray[np.bool_], share: float) -> NDArray[np.int64]:
    """The samples [N], rising, that have the lowest evidence: `share` of those with a class, rounded down."""
    with_class = np.flatnonzero(conditional)
    count = math.floor(share * len(with_class) + 1e-9)
    order = np.argsort(evidence[with_class], kind="stable")
    return np.sort(with_class[order[:count]])
