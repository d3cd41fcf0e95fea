"""How far two sets of images are apart, measured on features of one judge. Pure functions in float64.

All take features [N, D]; none needs more memory than one block of distances, so 10,000 against 60,000 is fine.
The Fréchet distance is biased upwards, by about 1/N, and KID is not; either is read with its floor, which is the
same number for real images against real images at the same N.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.floating]
BLOCK = 1024  # rows of a block of distances


@dataclass(frozen=True)
class Estimate:
    """A metric's value; `sd` is the standard deviation over subsets, where there is one."""

    value: float
    sd: float | None = None


def frechet_distance(x: Array, y: Array) -> float:
    """Squared Fréchet (2-Wasserstein) distance of Gaussians fitted to [N, D] and [M, D] (Heusel et al. 2017).

    |mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), with unbiased covariances. By symmetric eigenvalues,
    tr (C_x C_y)^(1/2) = tr (A C_y A)^(1/2) with A = C_x^(1/2), which stays real for singular covariances.

    Raises:
        ValueError: fewer than two rows on a side.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError("a covariance needs two rows")
    return _between(_moments(x), _moments(y))


def _moments(rows: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean [D] and covariance [D, D] of rows [N, D]."""
    rows64 = np.asarray(rows, np.float64)
    return rows64.mean(0), np.atleast_2d(np.cov(rows64, rowvar=False))


def _between(x: tuple[Any, Any], y: tuple[Any, Any]) -> float:
    """The Fréchet distance of two Gaussians, each a mean and a covariance."""
    (mx, cx), (my, cy) = x, y
    values, vectors = np.linalg.eigh(cx)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cy @ root).clip(0)).sum()
    shift = mx - my
    return max(0.0, float(shift @ shift + np.trace(cx) + np.trace(cy) - 2 * cross))


def bootstrap_error(
    statistic: Callable[[NDArray[Any]], float], rows: NDArray[Any], *, draws: int = 100, seed: int = 0
) -> float:
    """Standard error of `statistic` of `rows` [N, ...]: its deviation over samples of N drawn from them with
    replacement (Efron 1979)."""
    generator = np.random.default_rng(seed)
    drawn = [statistic(rows[generator.integers(0, len(rows), len(rows))]) for _ in range(draws)]
    return float(np.std(drawn, ddof=1))


def frechet_error(x: Array, y: Array) -> float:
    """Standard error of `frechet_distance(x, y)` where x [N, D] is drawn anew and y [M, D], the real images, stays."""
    real = _moments(y)
    return bootstrap_error(lambda rows: _between(_moments(rows), real), x)


def kernel_error(x: Array, y: Array, *, size: int = 1000) -> float:
    """Standard error of `kernel_distance(x, y)` likewise: by the first-order part of the U-statistic in x (Hoeffding
    1948), estimated on at most `size` rows of either."""
    few, real = np.asarray(x[:size], np.float64), np.asarray(y[:size], np.float64)
    within = _cubic_kernel(few, few)
    np.fill_diagonal(within, 0)
    parts = within.sum(1) / (len(few) - 1) - _cubic_kernel(few, real).mean(1)  # [n], of each row
    return float(2 * parts.std(ddof=1) / len(x) ** 0.5)


def share_error(share: float, n: int) -> float:
    """Standard error of a share of n, which is above 0 also for 0 and 1 (Agresti & Coull 1998)."""
    p = (share * n + 2) / (n + 4)
    return float((p * (1 - p) / (n + 4)) ** 0.5)


def kernel_distance(x: Array, y: Array, *, subsets: int = 50, size: int = 1000, seed: int = 0) -> Estimate:
    """KID: unbiased squared MMD with the kernel (x.y/D + 1)^3 (Binkowski et al. 2018), mean and sd over subsets.

    Each subset is `size` rows of either side (fewer if there are fewer), drawn without replacement. It may be
    slightly negative for equal distributions.
    """
    rows = min(size, len(x), len(y))
    if rows < 2:
        raise ValueError("an unbiased estimate needs two rows")
    generator = np.random.default_rng(seed)
    whole = rows == len(x) == len(y)  # then all subsets are equal
    values = []
    for _ in range(1 if whole else subsets):
        i, j = (generator.choice(len(side), rows, replace=False) for side in (x, y))
        values.append(_unbiased_mmd(np.asarray(x[i], np.float64), np.asarray(y[j], np.float64)))
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


def _unbiased_mmd(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    n = len(x)
    kxx, kyy, kxy = (_cubic_kernel(a, b) for a, b in ((x, x), (y, y), (x, y)))
    within = (kxx.sum() - np.trace(kxx) + kyy.sum() - np.trace(kyy)) / (n * (n - 1))
    return float(within - 2 * kxy.mean())


def _cubic_kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    base = x @ y.T / x.shape[1] + 1
    return base * base * base  # ten times faster than ** 3


def precision_recall(real: Array, generated: Array, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019).

    Precision: the share of generated rows inside some real row's ball, whose radius is the distance to its k-th
    nearest other real row. Recall: the same with the sides changed. Both sets should be of one size.

    Raises:
        ValueError: not more than k rows on a side.
    """
    if min(len(real), len(generated)) <= k:
        raise ValueError(f"balls of k={k} need more than {k} rows")
    return _covered(real, generated, k), _covered(generated, real, k)


def _covered(centres: Array, points: Array, k: int) -> float:
    radii = neighbour_radii(centres, k)
    inside = torch.zeros(len(points), dtype=torch.bool)
    for start, block in _distance_blocks(points, centres):
        inside[start : start + len(block)] = (block <= radii).any(1)
    return float(inside.double().mean())


def neighbour_radii(rows: Array, k: int) -> torch.Tensor:
    """Distance of each row of [N, D] to its k-th nearest other row: float64 [N]."""
    radii = []
    for start, block in _distance_blocks(rows, rows):
        own = torch.arange(len(block))
        block[own, start + own] = torch.inf
        radii.append(block.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def nearest(points: Array, references: Array) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each of [N, D] the Euclidean distance to, and index of, its nearest row among [M, D]."""
    blocks = [block.min(1) for _, block in _distance_blocks(points, references)]
    return torch.cat([f.values for f in blocks]).numpy(), torch.cat([f.indices for f in blocks]).numpy()


def _distance_blocks(x: Array, y: Array) -> Iterator[tuple[int, torch.Tensor]]:
    """Euclidean distances of all rows of `x` to all of `y`, as (first row, float64 [<= BLOCK, M])."""
    tx = torch.from_numpy(np.ascontiguousarray(x, np.float64))
    ty = torch.from_numpy(np.ascontiguousarray(y, np.float64))
    squares = (ty * ty).sum(1)
    for start in range(0, len(tx), BLOCK):
        rows = tx[start : start + BLOCK]
        block = torch.addmm(squares, rows, ty.T, alpha=-2) + (rows * rows).sum(1, keepdim=True)
        yield start, block.clamp_(min=0).sqrt_()


def histogram_chi2(counts: NDArray[np.int64], expected: NDArray[Any]) -> float:
    """Pearson's chi-squared of class `counts` [K] against `expected` shares [K], over its K - 1 degrees of freedom.

    About 1 for a fair draw. A class that is expected never and found is infinitely wrong.
    """
    share = np.asarray(expected, np.float64)
    wanted = share / share.sum() * counts.sum()
    possible = wanted > 0
    if counts[~possible].any():
        return float("inf")
    terms = (counts[possible] - wanted[possible]) ** 2 / wanted[possible]
    return float(terms.sum() / max(1, possible.sum() - 1))
