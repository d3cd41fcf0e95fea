"""Metrics against torchmetrics, scipy, closed forms and cases small enough to count by hand."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.stats import chisquare
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from core.images.metrics import (
    BLOCK,
    frechet_distance,
    histogram_chi2,
    kernel_distance,
    nearest,
    neighbour_radii,
    precision_recall,
)

RANDOM = np.random.default_rng(11)


def gaussian(n: int, mean: float = 0.0, scale: float = 1.0, dims: int = 8) -> np.ndarray:
    return RANDOM.normal(mean, scale, (n, dims))


class Flatten(nn.Module):
    """Images as their own features, for torchmetrics."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def test_frechet_distance_is_torchmetrics() -> None:
    x, y = (torch.rand(n, 3, 2, 2, dtype=torch.float64) * scale for n, scale in ((200, 1.0), (150, 0.7)))
    oracle = FrechetInceptionDistance(feature=Flatten(), normalize=True, input_img_size=(3, 2, 2))
    oracle.set_dtype(torch.float64)
    oracle.update(x, real=True)
    oracle.update(y, real=False)
    mine = frechet_distance(x.flatten(1).numpy(), y.flatten(1).numpy())
    assert mine == pytest.approx(oracle.compute().item(), rel=1e-6)


def test_frechet_distance_is_the_formula_with_scipys_matrix_root() -> None:
    mixing = RANDOM.normal(size=(8, 8))
    x, y = gaussian(300) @ mixing, gaussian(400, mean=0.5)
    cx, cy = np.cov(x.T), np.cov(y.T)
    shift = x.mean(0) - y.mean(0)
    expected = shift @ shift + np.trace(cx + cy - 2 * sqrtm(cx @ cy).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_scaled_and_shifted_copies_has_a_closed_form() -> None:
    """For y = s x + m: |(s-1) mean + m|^2 + (s-1)^2 tr C, exactly, whatever x is."""
    x = gaussian(500)
    y = 1.5 * x + 2.0
    shift = 0.5 * x.mean(0) + 2.0
    assert frechet_distance(x, y) == pytest.approx(shift @ shift + 0.25 * np.trace(np.cov(x.T)), rel=1e-10)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_symmetric_and_finite_for_singular_covariances() -> None:
    x, y = gaussian(5, dims=20), gaussian(7, dims=20)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-6)
    constant = np.zeros((6, 20))
    assert frechet_distance(x, constant) == pytest.approx((x.mean(0) ** 2).sum() + np.trace(np.cov(x.T)), rel=1e-9)


def test_frechet_distance_of_equal_distributions_falls_as_one_over_n() -> None:
    small, large = (np.mean([frechet_distance(gaussian(n), gaussian(n)) for _ in range(20)]) for n in (100, 1600))
    assert 10 < small / large < 24


def test_kernel_distance_of_whole_sets_is_torchmetrics() -> None:
    x, y = gaussian(60), gaussian(60, mean=0.3)
    assert kernel_distance(x, y).value == pytest.approx(poly_mmd_of(x, y), rel=1e-9)


def poly_mmd_of(x: np.ndarray, y: np.ndarray) -> float:
    return float(poly_mmd(torch.tensor(x), torch.tensor(y), degree=3, gamma=None, coef=1.0))


def test_kernel_distance_is_unbiased_where_frechet_distance_is_not() -> None:
    values = [kernel_distance(gaussian(50), gaussian(50)).value for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)
    assert min(values) < 0
    far = [kernel_distance(gaussian(50), gaussian(50, mean=1)).value for _ in range(5)]
    assert min(far) > max(values)


def test_kernel_distance_over_subsets_agrees_with_all_pairs_and_states_its_deviation() -> None:
    x, y = gaussian(400), gaussian(400, mean=0.2)
    estimate = kernel_distance(x, y, subsets=200, size=100)
    assert estimate.sd is not None
    assert abs(estimate.value - poly_mmd_of(x, y)) < 4 * estimate.sd / np.sqrt(200)


def test_precision_and_recall_by_hand() -> None:
    """Real at 0, 1, 2 with k=1: balls of radius 1 cover [-1, 3]. Generated at 0.5, 2.5, 9: 2.5 and 0.5 are inside.

    Generated radii: 2, 2, 6.5, so the balls cover [-1.5, 4.5] and [2.5, 15.5]: all of real.
    """
    real, generated = np.array([[0.0], [1.0], [2.0]]), np.array([[0.5], [2.5], [9.0]])
    precision, recall = precision_recall(real, generated, k=1)
    assert (precision, recall) == (pytest.approx(2 / 3), 1.0)


def test_samples_of_one_mode_have_precision_without_recall() -> None:
    real = np.concatenate([gaussian(200, mean) for mean in (-20, 20)])
    precision, recall = precision_recall(real, gaussian(400, 20, 0.5))
    assert precision > 0.95
    assert recall < 0.55


def test_scattered_samples_have_recall_without_precision() -> None:
    precision, recall = precision_recall(gaussian(300), gaussian(300, scale=4))
    assert precision < 0.1
    assert recall > 0.9


def test_neighbours_are_scipys_over_several_blocks() -> None:
    x, y = gaussian(BLOCK + 200), gaussian(900)
    distances = cdist(x, y)
    found, index = nearest(x, y)
    np.testing.assert_allclose(found, distances.min(1), rtol=1e-9)
    np.testing.assert_array_equal(index, distances.argmin(1))
    own = np.sort(cdist(x, x), axis=1)  # column 0 is the row itself
    np.testing.assert_allclose(neighbour_radii(x, 3).numpy(), own[:, 3], rtol=1e-6)


def test_chi_squared_is_scipys_per_degree_of_freedom() -> None:
    counts, shares = np.array([12, 30, 25, 33]), np.array([0.1, 0.3, 0.3, 0.3])
    assert histogram_chi2(counts, shares) == pytest.approx(chisquare(counts, 100 * shares).statistic / 3)
    assert histogram_chi2(np.array([5, 1]), np.array([1.0, 0.0])) == float("inf")
    assert histogram_chi2(np.array([5, 0]), np.array([3.0, 0.0])) == 0
