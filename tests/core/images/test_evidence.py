"""Evidence for a class: against the log-likelihood ratio of distributions that have a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from core.images.evidence import Evidence, lowest

MEANS = torch.tensor([[1.0, 0.0], [-0.5, 0.8]])  # of two classes, equally frequent, each a Gaussian of this variance:
VARIANCE = 0.3


def of_class(x: Tensor, sigma: float) -> Tensor:
    """E[y | x] for each class, [2, B, 2]."""
    return (sigma**2 * MEANS[:, None] + VARIANCE * x) / (sigma**2 + VARIANCE)


def log_densities(x: Tensor, sigma: float) -> Tensor:
    """ln p(x | class), [2, B], up to what both have in common."""
    return -(x - MEANS[:, None]).square().sum(2) / (2 * (VARIANCE + sigma**2))


def without(x: Tensor, sigma: float) -> Tensor:
    """E[y | x] without the class, [B, 2]."""
    posterior = log_densities(x, sigma).softmax(0)  # [2, B]
    return (posterior[..., None] * of_class(x, sigma)).sum(0)


@pytest.mark.parametrize("point", [(1.2, -0.1), (0.2, 0.4), (-0.9, 1.5)])
def test_evidence_is_the_log_likelihood_ratio_in_expectation_over_noise(point: tuple[float, float]) -> None:
    draws = torch.Generator().manual_seed(0)
    clean = torch.tensor(point).expand(20_000, 2)
    sigmas = torch.logspace(1.5, -2, 120)
    evidence = Evidence(sigmas, low=0.008, high=40.0)
    for sigma in map(float, sigmas):
        x = clean + sigma * torch.randn(clean.shape, generator=draws)
        assert evidence.watches(sigma)
        evidence.see(sigma, *(one.view(-1, 1, 1, 2) for one in (of_class(x, sigma)[0], without(x, sigma))))
    measured = evidence.of(clean.reshape(-1, 1, 1, 2))
    ratio = log_densities(clean[:1], 0.0).log_softmax(0)[0] + np.log(2)  # p(class) = 1/2 drops out
    error = float(measured.std() / len(measured) ** 0.5)
    assert abs(float(measured.mean() - ratio)) < 4 * error + 0.01


def test_only_levels_between_the_limits_count_and_their_cells_fill_the_range() -> None:
    sigmas = torch.tensor([40.0, 9.0, 6.0, 2.0, 0.5, 0.1, 0.02, 0.0], dtype=torch.float64)
    evidence = Evidence(sigmas)
    watched = [float(sigma) for sigma in sigmas if evidence.watches(float(sigma))]
    assert watched == [9.0, 6.0, 2.0, 0.5]  # the cell of 9 reaches below 8, that of 0.1 not above 0.3
    near, far = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    for sigma in watched:
        evidence.see(sigma, near, far)
    assert evidence.of(near).item() == pytest.approx((1 / 0.3**2 - 1 / 8.0**2) / 2, rel=1e-6)  # |0 - 1|^2 - |0 - 0|^2


def test_a_level_that_a_sampler_evaluates_twice_counts_once() -> None:
    x, a, b = torch.randn(3, 4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    found = []
    for first in (a, b):
        evidence = Evidence(torch.tensor([4.0, 1.0, 0.0]))
        evidence.see(4.0, first, x)
        evidence.see(4.0, a, b)
        evidence.see(1.0, b, a)
        found.append(evidence.of(x))
    assert torch.equal(*found)


def test_the_lowest_share_is_of_samples_with_a_class() -> None:
    evidence = np.array([3, -9, 0, 2, 1, -1, 5, 4], np.float32)
    conditional = np.array([True, True, False, True, True, True, True, True])
    assert lowest(evidence, conditional, 0.3).tolist() == [1, 5]  # 0.3 of seven
    assert lowest(evidence, conditional, 0.1).tolist() == []
    assert lowest(evidence, conditional & False, 0.5).tolist() == []
