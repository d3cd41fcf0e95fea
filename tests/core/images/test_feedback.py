"""Feedback guidance: against densities of a mixture that has a closed form, and a denoiser that confuses classes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from core import samplers
from core.config import validate
from core.errors import UserError
from core.images.config import NOISY, ImageSample, Process
from core.images.feedback import MOST, Feedback
from core.images.guidance import guided
from core.images.model import NoiseProcess
from core.images.sampling import evaluations
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


PROCESS = Confused(Process())


def drawn(feedback: float, sampler: str = "dpmpp_sde", count: int = 4000) -> Tensor:
    """Samples of the confused denoiser, of the first class throughout."""
    settings = validate(ImageSample, {"steps": 150, "sigma_max": 20.0, "sigma_min": 0.05}, "sample")
    sigmas = karras_sigmas(settings.steps, settings.sigma_min, settings.sigma_max, settings.rho)
    labels = torch.zeros(count, dtype=torch.long)
    denoiser = guided(nn.Identity(), PROCESS, labels, 2, feedback=feedback)
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


def test_a_second_evaluation_at_a_level_begins_a_path() -> None:
    x, ones = torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    feedback = Feedback(0.1)
    for state in (x, ones):  # as `start: estimate` has it
        assert feedback.weight(state, 10.0, ones, x).tolist() == pytest.approx([1 / 0.9] * 2)


def test_it_adds_to_guidance_above_the_low_end_of_its_interval() -> None:
    labels, x = torch.zeros(3, dtype=torch.long), torch.linspace(-2, 2, 6).view(3, 1, 1, 2)
    with_it, without = (
        guided(nn.Identity(), PROCESS, labels, 2, scale=1.5, interval=(0.5, 5.0), feedback=share)
        for share in (0.1, 0.0)
    )
    for sigma, weight in ((8.0, 1.0), (8.0, 1.0), (0.4, 1.0)):  # above, again, below
        first, none = (mixed(x, sigma, shares_of(labels + more, SHARE))[0] for more in (0, 2))
        extra = 1 / 0.9 - 1 if sigma > 0.5 else 0.0
        found = with_it(x, torch.tensor(sigma))
        assert torch.allclose(found, none + (weight + extra) * (first - none), atol=1e-5)
        assert torch.allclose(without(x, torch.tensor(sigma)), none + weight * (first - none), atol=1e-5)
    inside = guided(nn.Identity(), PROCESS, labels, 2, scale=1.5, interval=(0.5, 5.0), feedback=0.1)
    first, none = (mixed(x, 2.0, shares_of(labels + more, SHARE))[0] for more in (0, 2))
    assert torch.allclose(inside(x, torch.tensor(2.0)), none + (1.5 + 1 / 0.9 - 1) * (first - none), atol=1e-5)


def test_samples_of_no_class_are_not_evaluated_twice() -> None:
    batches: list[int] = []

    class Counting(Confused):
        def denoise(self, network: Callable[..., object], x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
            batches.append(len(x))
            return super().denoise(network, x, sigma, labels)

    x = torch.zeros(3, 1, 1, 2)
    for label, expected in ((2, 3), (0, 6)):
        labels = torch.full((3,), label)
        guided(nn.Identity(), Counting(Process()), labels, 2, feedback=0.1)(x, torch.tensor(2.0))
        assert batches.pop() == expected


def test_the_evaluation_without_a_class_is_counted() -> None:
    settings = validate(ImageSample, {"sampler": "ddpm", "steps": 10, "feedback": 0.1}, "sample")
    assert evaluations(settings) == 20


def test_the_samplers_that_it_knows_are_those_that_take_noise() -> None:
    assert {name for name in samplers.SAMPLERS if samplers.noises(name, 2)} == set(NOISY)


@pytest.mark.parametrize("sampler", ["dpmpp", "heun", "ddim"])
def test_samplers_without_new_noise_are_refused(sampler: str) -> None:
    with pytest.raises(
        UserError, match=f"feedback is 0.1, sampler is {sampler}; .*dpmpp_sde or ddpm, or set feedback to 0"
    ):
        validate(ImageSample, {"feedback": 0.1, "sampler": sampler}, "sample")
