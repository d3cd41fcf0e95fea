"""Samplers, against the exact posterior of a finite data set and against diffusers."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch

from core import noise, samplers
from core.randomness import Noise


class IdealDenoiser:
    """E[y | x] for y uniform over finitely many `points` [N, ...]: the exact optimum of the training loss."""

    def __init__(self, points: torch.Tensor) -> None:
        self.points = points

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        distance = (x[:, None] - self.points[None]).flatten(2).square().sum(2)
        weights = torch.softmax(-distance / (2 * sigma**2), dim=1)
        return torch.einsum("bn,n...->b...", weights, self.points)


@pytest.fixture
def points() -> torch.Tensor:
    return torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def start(sigma_max: float, count: int = 16, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return sigma_max * torch.randn(count, 1, 2, 2, generator=generator, dtype=torch.float64)


def ladder(steps: int, high: float = 20.0, low: float = 0.8) -> torch.Tensor:
    """Noise levels that stop before 0, where the posterior collapses to points and errors would vanish."""
    return torch.linspace(math.log(high), math.log(low), steps + 1, dtype=torch.float64).exp()


def exact_flow(denoiser: IdealDenoiser, x: torch.Tensor, high: float = 20.0, low: float = 0.8) -> torch.Tensor:
    """The probability-flow ODE by classical Runge-Kutta of fourth order in ln sigma, finely: independent of us."""
    grid = torch.linspace(math.log(high), math.log(low), 2001, dtype=torch.float64)
    h = (grid[1] - grid[0]).item()

    def slope(x, s):
        return x - denoiser(x, s.exp())  # dx/dln(sigma)

    for s in grid[:-1]:
        k1 = slope(x, s)
        k2 = slope(x + h / 2 * k1, s + h / 2)
        k3 = slope(x + h / 2 * k2, s + h / 2)
        k4 = slope(x + h * k3, s + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpmpp", 2)])
def test_sampler_has_its_order_of_convergence_on_the_ideal_denoiser(name, order, points):
    denoiser, x = IdealDenoiser(points), start(20.0)
    exact = exact_flow(denoiser, x)
    errors = [
        (samplers.SAMPLERS[name](denoiser, x, ladder(steps)) - exact).abs().mean().item() for steps in (80, 160, 320)
    ]
    measured = [math.log2(a / b) for a, b in pairwise(errors)]
    assert measured == pytest.approx([order, order], abs=0.2)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_every_sampler_ends_on_points_of_the_data_set(name, points):
    sigmas = noise.karras_sigmas(40, 0.01, 40)
    source = partial(Noise(range(32)).normal, 1, 2, 2)
    x = samplers.SAMPLERS[name](IdealDenoiser(points), start(40.0, 32), sigmas, noise=lambda: source().double())
    nearest = torch.cdist(x.flatten(1), points.flatten(1)).min(1)[0]
    assert nearest.max() < 0.01


@pytest.mark.parametrize(("name", "steps"), [("ddpm", 100), ("dpmpp_sde", 40)])
def test_sampling_with_noise_draws_every_point_equally_often(name, steps, points):
    sigmas = noise.karras_sigmas(steps, 0.01, 80)
    source = partial(Noise(range(3000)).normal, 1, 2, 2)
    x = samplers.SAMPLERS[name](IdealDenoiser(points), start(80.0, 3000), sigmas, noise=lambda: source().double())
    counts = torch.bincount(torch.cdist(x.flatten(1), points.flatten(1)).argmin(1), minlength=5)
    chi2 = ((counts - 600) ** 2 / 600).sum().item()
    assert chi2 < 23.5  # 1e-4 quantile of chi^2 with 4 degrees of freedom


def variance_preserving(denoiser, sigma: float):
    """Noise prediction of the same denoiser on x / sqrt(1 + sigma^2), as diffusers wants it."""
    scale = math.sqrt(1 + sigma**2)
    return lambda x: (x * scale - denoiser(x * scale, torch.tensor(sigma, dtype=x.dtype))) / sigma


def run_diffusers(scheduler, denoiser, x, table, **step_options):
    x = x / math.sqrt(1 + float(table[scheduler.timesteps[0]]) ** 2)
    for t in scheduler.timesteps:
        epsilon = variance_preserving(denoiser, float(table[t]))(x)
        x = scheduler.step(epsilon, t, x, **step_options).prev_sample
    return x


def test_ddim_is_diffusers_ddim(points):
    from diffusers import DDIMScheduler

    table, denoiser = noise.linear_beta_sigmas(200, 1e-4, 5e-2), IdealDenoiser(points)
    scheduler = DDIMScheduler(
        num_train_timesteps=200, beta_end=5e-2, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(200)
    x = start(float(table[-1]))
    ours = samplers.sample_ddim(denoiser, x, noise.schedule_sigmas(200, table))
    torch.testing.assert_close(ours, run_diffusers(scheduler, denoiser, x, table), rtol=1e-3, atol=1e-4)


def test_ddpm_is_diffusers_ddpm_given_the_same_noise(points):
    from diffusers import DDPMScheduler

    table, denoiser = noise.linear_beta_sigmas(200, 1e-4, 5e-2), IdealDenoiser(points)
    scheduler = DDPMScheduler(num_train_timesteps=200, beta_end=5e-2, clip_sample=False, variance_type="fixed_small")
    scheduler.set_timesteps(200)
    x = start(float(table[-1]))
    theirs_generator, ours_generator = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
    theirs = run_diffusers(scheduler, denoiser, x, table, generator=theirs_generator)
    ours = samplers.sample_ddpm(
        denoiser,
        x,
        noise.schedule_sigmas(200, table),
        noise=lambda: torch.randn(x.shape, generator=ours_generator, dtype=torch.float64),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "theirs"), [("dpmpp", "dpmsolver++"), ("dpmpp_sde", "sde-dpmsolver++")])
def test_dpmpp_is_diffusers_dpmsolver_multistep_given_the_same_noise(name, theirs, points):
    from diffusers import DPMSolverMultistepScheduler

    table, denoiser = noise.linear_beta_sigmas(1000), IdealDenoiser(points)
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type=theirs, solver_order=2, timestep_spacing="linspace", final_sigmas_type="zero"
    )
    scheduler.set_timesteps(20)
    sigmas = torch.cat([table[scheduler.timesteps], torch.zeros(1, dtype=torch.float64)])
    x = start(float(sigmas[0]))
    generators = [torch.Generator().manual_seed(7) for _ in range(2)]
    ours = samplers.SAMPLERS[name](
        denoiser, x, sigmas, noise=lambda: torch.randn(x.shape, generator=generators[0]).double()
    )
    expected = run_diffusers(scheduler, denoiser, x, table, generator=generators[1])
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_a_sample_is_the_same_whatever_the_batch(name, points):
    sigmas = noise.karras_sigmas(10, 0.02, 20)

    def draw(seeds):
        source = partial(Noise(seeds).normal, 1, 2, 2)
        x = 20.0 * source()
        return samplers.SAMPLERS[name](IdealDenoiser(points.float()), x, sigmas, noise=source)

    together, alone = draw(range(3, 11)), draw([4])
    torch.testing.assert_close(together[1:2], alone)
    assert len(together.unique(dim=0)) > 1


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_evaluations_are_counted_as_the_sampler_makes_them(name, points):
    calls = []
    ideal = IdealDenoiser(points)

    def denoiser(x, sigma):
        calls.append(float(sigma))
        return ideal(x, sigma)

    steps: list[samplers.Step] = []
    sigmas = noise.karras_sigmas(9, 0.02, 20)
    source = partial(Noise(range(2)).normal, 1, 2, 2)
    samplers.SAMPLERS[name](denoiser, start(20.0, 2), sigmas, noise=source, callback=steps.append)
    assert len(calls) == samplers.evaluations(name, 9)
    assert [step.sigma for step in steps] == pytest.approx(sigmas[:-1].tolist())
    assert min(calls) > 0


def test_an_estimated_start_misses_less_of_the_mean():
    """For data N(c, s^2) all is linear: a path begun at distance d from c ends at c + d s / sqrt(s^2 + sigma^2)."""
    c, s, sigma = -0.9, 0.5, 4.0

    def ideal(x, level):
        return (s**2 * x + level**2 * c) / (s**2 + level**2)

    none = torch.zeros(1, dtype=torch.float64)  # noise of zero: the path of the mean
    begun = samplers.estimated_start(ideal, none, sigma)
    sigmas = noise.karras_sigmas(300, 1e-3, sigma)
    shrink, missing = s / (s**2 + sigma**2) ** 0.5, s**2 / (s**2 + sigma**2)
    for start_, distance in ((none, -c), (begun, -c * missing)):
        end = samplers.sample_heun(ideal, start_, sigmas)
        assert float(end) == pytest.approx(c + distance * shrink, abs=1e-5)


@pytest.mark.parametrize("sigmas", [[1.0], [1.0, 2.0], [1.0, 1.0], [1.0, -1.0]])
def test_noise_levels_that_do_not_fall_are_refused(sigmas, points):
    with pytest.raises(ValueError, match="must fall"):
        samplers.sample_ddim(IdealDenoiser(points), start(1.0), torch.tensor(sigmas))


@pytest.mark.parametrize("name", ["ddpm", "dpmpp_sde"])
def test_sampling_with_noise_but_without_its_source_is_refused(name, points):
    with pytest.raises(ValueError, match="needs a noise source"):
        samplers.SAMPLERS[name](IdealDenoiser(points), start(9.0), noise.karras_sigmas(4, 0.1, 9))
