"""Feedback guidance: against densities of a mixture that has a closed form, and a denoiser that confuses classes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from core import samplers
from core.config import validate
from core.errors import UserError
from core.images.config import ImageSample
from core.images.feedback import MOST, Feedback
from core.images.guidance import guided
from core.images.model import NoiseProcess
from core.noise import karras_sigmas

MEANS = torch.tensor([2.0, -2.0])  # of two classes, equally frequent, along each of the two pixels
VARIANCE = 0.25
SHARE = 0.2  # of a class's samples, those that the denoiser below draws of any


def mixed(x: Tensor, sigma: float, shares: Tensor) -> tuple[Tensor, Tensor]:
    """E[y | x], [B, 1, 1, 2], and ln p(x), [B], up to a constant, where classes have `shares`, [B, 2]."""
    far = x[:, None] - MEANS.view(1, 2, 1, 1, 1)  # [B, 2, 1, 1, 2]
    logs = shares.log() - far.square().flatten(2).sum(2) / (2 * (VARIANCE + sigma**2))
    of_class = (sigma**2 * MEANS.view(1, 2, 1, 1, 1) + VARIANCE * x[:, None]) / (sigma**2 + VARIANCE)
    return (logs.softmax(1)[..., None, None, None] * of_class).sum(1), logs.logsumexp(1)


def shares_of(labels: Tensor, share: float) -> Tensor:
    """What a network that confuses `share` of a class draws of the two; label 2 means no class. [B, 2]"""
    table = torch.tensor([[1 - share / 2, share / 2], [share / 2, 1 - share / 2], [0.5, 0.5]])
    return table[labels]


class Confused(NoiseProcess):
    """A process whose denoiser is exact, but for classes that it confuses."""

    def denoise(self, network: Callable[..., object], x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return mixed(x, float(sigma), shares_of(labels, SHARE))[0]


def drawn(feedback: float, sampler: str = "dpmpp_sde", count: int = 4000) -> Tensor:
    """Samples of the confused denoiser, of the first class throughout."""
    settings = validate(ImageSample, {"steps": 150, "sigma_max": 20.0, "sigma_min": 0.05}, "sample")
    sigmas = karras_sigmas(settings.steps, settings.sigma_min, settings.sigma_max, settings.rho)
    labels = torch.zeros(count, dtype=torch.long)
    process = Confused.__new__(Confused)
    denoiser = guided(lambda *_: None, process, labels, 2, feedback=feedback)  # type: ignore[arg-type]
    normals = torch.Generator().manual_seed(3)

    def noise() -> Tensor:
        return torch.randn(count, 1, 1, 2, generator=normals)

    return samplers.SAMPLERS[sampler](denoiser, float(sigmas[0]) * noise(), sigmas, noise=noise)


def of_the_other_class(x: Tensor) -> float:
    return float((x.flatten(1).sum(1) < 0).double().mean())


@pytest.mark.parametrize("sampler", ["dpmpp_sde", "ddpm"])
def test_a_network_that_confuses_classes_no_longer_does(sampler: str) -> None:
    without, corrected = drawn(0.0, sampler), drawn(SHARE, sampler)
    assert of_the_other_class(without) == pytest.approx(SHARE / 2, abs=0.025)
    assert of_the_other_class(corrected) < 0.02
    right = corrected[corrected.flatten(1).sum(1) > 0]
    assert right.mean() == pytest.approx(float(MEANS[0]), abs=0.05)  # no further out than the class is
    assert right.var() == pytest.approx(VARIANCE, rel=0.1)


def test_the_ratio_of_a_path_is_that_of_the_densities_where_it_ends() -> None:
    count, draws = 500, torch.Generator().manual_seed(0)
    of, none = (shares_of(torch.full((count,), label), SHARE) for label in (0, 2))
    feedback = Feedback(SHARE)
    sigmas = torch.logspace(math.log10(60.0), math.log10(0.3), 4000).tolist()
    means = MEANS[torch.arange(count) % 2].view(-1, 1, 1, 1)
    clean = means + VARIANCE**0.5 * torch.randn(count, 1, 1, 2, generator=draws)
    observed, gamma = torch.zeros_like(clean), 0.0  # x / sigma^2, a diffusion in growing gamma = 1 / sigma^2
    for sigma in sigmas:
        step = 1 / sigma**2 - gamma
        observed = observed + step * clean + step**0.5 * torch.randn(clean.shape, generator=draws)
        gamma += step
        x = observed * sigma**2
        feedback.weight(x, sigma, mixed(x, sigma, of)[0], mixed(x, sigma, none)[0])
    ratio = mixed(x, sigmas[-1], of)[1] - mixed(x, sigmas[-1], none)[1]
    assert feedback.log_ratio is not None
    assert ratio.std() > 0.5  # of both classes there are paths
    assert (feedback.log_ratio - ratio).abs().mean() < 0.05


def test_a_weight_is_one_for_certain_samples_and_has_a_limit() -> None:
    x = torch.zeros(3, 1, 1, 1)
    feedback = Feedback(0.1)
    assert feedback.weight(x, 10.0, x, x).tolist() == pytest.approx([1 / 0.9] * 3)  # nothing is known yet
    far = torch.tensor([30.0, 0.0, -30.0]).view(3, 1, 1, 1)
    feedback = Feedback(0.1)
    feedback.weight(x, 10.0, far, x)
    assert feedback.weight(far, 1.0, far, x).tolist() == [1.0, pytest.approx(1 / 0.9), 1.0]
    feedback = Feedback(0.1)
    feedback.weight(x, 10.0, far, x)
    assert feedback.weight(-far, 1.0, far, x).tolist() == [MOST, pytest.approx(1 / 0.9), MOST]


def test_a_path_begins_anew_where_the_level_does_not_fall() -> None:
    x, ones = torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    feedback = Feedback(0.1)
    for _ in range(2):
        feedback.weight(x, 10.0, ones, x)
        feedback.weight(ones, 1.0, ones, x)
        assert feedback.log_ratio is not None
        assert feedback.log_ratio.tolist() == pytest.approx([1 - 0.99 / 2] * 2)


@pytest.mark.parametrize("sampler", ["dpmpp", "heun", "ddim"])
def test_samplers_without_new_noise_are_refused(sampler: str) -> None:
    with pytest.raises(UserError, match=f"feedback is 0.1, sampler is {sampler}; .*dpmpp_sde or ddpm"):
        validate(ImageSample, {"feedback": 0.1, "sampler": sampler}, "sample")
