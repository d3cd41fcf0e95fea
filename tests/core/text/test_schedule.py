"""Noise levels, evidence and the warp, against their definitions."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.text.config import ProcessConfig
from core.text.reverse_steps import STEPS
from core.text.schedule import NoisePath, Warp, alpha_sigma, diffuse, evidence, tilted

KEPT = torch.tensor(True)


def sphere(tokens: int, size: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(tokens, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=-1) * math.sqrt(size)


@given(st.floats(-15, 15))
def test_gamma_is_the_log_of_noise_to_signal(value: float) -> None:
    alpha, sigma = alpha_sigma(torch.tensor(value, dtype=torch.float64))
    assert float((sigma**2 / alpha**2).log()) == pytest.approx(value, abs=1e-6)
    assert float(alpha**2 + sigma**2) == pytest.approx(1)


@settings(deadline=None)
@given(st.floats(-1, 9), st.integers(0, 100))
def test_unigram_plus_evidence_is_bayes_rule(value: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    table, prior = sphere(7, 5), torch.randn(7, generator=generator, dtype=torch.float64).log_softmax(0)
    gamma = torch.full((1, 1), value, dtype=torch.float64)
    z = diffuse(table[None, 3:4], gamma, torch.randn(1, 1, 5, generator=generator, dtype=torch.float64))
    alpha, sigma = alpha_sigma(gamma)
    likelihood = torch.distributions.Normal(alpha * table, sigma).log_prob(z[0]).sum(dim=-1)
    expected = (likelihood + prior).log_softmax(dim=-1)
    torch.testing.assert_close((evidence(z, gamma, table) + prior).log_softmax(dim=-1)[0, 0], expected)


def test_the_warp_is_uniform_before_it_has_seen_anything() -> None:
    warp = Warp(ProcessConfig(gamma_min=-1, gamma_max=9))
    torch.testing.assert_close(warp.gamma(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([-1.0, 4.0, 9.0]))


def test_equal_steps_of_the_warp_are_equal_steps_of_information() -> None:
    warp = Warp(ProcessConfig(gamma_min=-1, gamma_max=9, warp_uniform=0.01))
    gamma = torch.linspace(-1, 9, 20_001)[:-1]
    warp.observe(gamma, torch.sigmoid(1.5 * (gamma - 4)))
    warp.settle(KEPT)
    grid = NoisePath(warp).grid(10)[:, 0]
    losses = torch.sigmoid(1.5 * (grid - 4))
    torch.testing.assert_close(losses.diff().neg(), torch.full((10,), 0.1), atol=0.03, rtol=0)


def test_the_warp_inverts_its_own_distribution() -> None:
    warp = Warp(ProcessConfig())
    warp.observe(torch.linspace(-1, 9, 5000), torch.linspace(0, 1, 5000) ** 3)
    warp.settle(KEPT)
    edges = torch.linspace(-1, 9, len(warp.distribution()))
    torch.testing.assert_close(warp.gamma(warp.distribution()[1:-1]), edges[1:-1], atol=1e-4, rtol=0)


def test_the_warp_follows_what_it_sees_and_lives_in_the_checkpoint() -> None:
    warp, other = Warp(ProcessConfig()), Warp(ProcessConfig())
    gamma = torch.linspace(-1, 9, 5000)
    warp.observe(gamma, (gamma > 6).float())
    warp.settle(KEPT)
    assert 5.5 < float(warp.gamma(torch.tensor([0.5]))) < 6.5
    for _ in range(200):
        warp.observe(gamma, (gamma > 2).float())
        warp.settle(KEPT)
    assert 1.5 < float(warp.gamma(torch.tensor([0.5]))) < 2.5
    other.load_state_dict(warp.state_dict())
    torch.testing.assert_close(NoisePath(other).grid(9), NoisePath(warp).grid(9), rtol=0, atol=0)


def test_tilt_runs_from_all_at_once_to_one_after_the_other() -> None:
    u = torch.linspace(1, 0, 50)
    torch.testing.assert_close(tilted(u, 4, 0.0), u[:, None].expand(50, 4))
    for tilt in (0.5, 3.0):
        times = tilted(u, 4, tilt)
        assert (times[0] == 1).all()
        assert (times[-1] == 0).all()
        assert (times.diff(dim=0) <= 1e-6).all()  # time runs one way
        assert (times.diff(dim=1) >= -1e-6).all()  # the left is ahead
    moving = (tilted(u, 4, 3.0) > 1e-6) & (tilted(u, 4, 3.0) < 1 - 1e-6)
    assert int(moving.sum(dim=1).max()) == 1


def test_lanes_are_written_side_by_side() -> None:
    u = torch.linspace(1, 0, 50)
    for block, lanes, lane in ((8, 2, 4), (8, 8, 1), (7, 2, 4), (6, 4, 2)):
        alone, together = tilted(u, lane, lane - 1.0), tilted(u, block, lane - 1.0, lanes)
        torch.testing.assert_close(together, torch.cat([alone] * lanes, dim=1)[:, :block])


@pytest.mark.parametrize(
    ("lanes", "block", "steps", "chosen", "tilt"),
    [
        ((1,), 8, 2, 1, 7.0),  # no others were trained
        ((1, 2, 4), 8, 16, 1, 7.0),
        ((1, 2, 4), 8, 8, 1, 7.0),
        ((4, 1, 2), 8, 7, 2, 3.0),
        ((1, 2, 4), 8, 4, 2, 3.0),
        ((1, 2, 4), 8, 1, 4, 1.0),
        ((1, 2, 4), 5, 3, 2, 2.0),  # the last block of a text, or a gap
        ((1, 2, 4), 1, 1, 1, 0.0),
        ((1, 2, 4), 32, 16, 2, 7.0),  # no more than was trained
    ],
)
def test_a_block_has_as_few_lanes_as_its_steps_allow(
    lanes: tuple[int, ...], block: int, steps: int, chosen: int, tilt: float
) -> None:
    process = ProcessConfig(blocks=(8,) * len(lanes), lanes=lanes)
    path = NoisePath.sampled(Warp(process), process, block, steps)
    assert (path.lanes, path.tilt) == (chosen, tilt)
    assert NoisePath.sampled(Warp(process), process, block, steps, 0.0).tilt == 0


def test_lanes_are_of_each_block_or_of_all() -> None:
    assert ProcessConfig(blocks=(8, 32), lanes=(2,)).shapes == ((8, 2), (32, 2))
    assert ProcessConfig(blocks=(8, 32), lanes=(1, 4)).shapes == ((8, 1), (32, 4))
    with pytest.raises(ValueError, match="expected one for all, or one for each of 3 blocks"):
        ProcessConfig(blocks=(8, 8, 32), lanes=(1, 2))
    with pytest.raises(ValueError, match="lanes: found 16 of a block of 8; expected 8 at most"):
        ProcessConfig(blocks=(32, 8), lanes=(1, 16))


@pytest.mark.parametrize("name", ["ddim", "ddpm", "q"])
def test_samplers_draw_the_data_distribution_from_the_exact_posterior(name: str) -> None:
    """Two embeddings with probabilities .8 and .2 in one dimension: the ideal denoiser's samples have that law."""
    generator = torch.Generator().manual_seed(0)
    table, prior = torch.tensor([[1.0], [-1.0]]), torch.tensor([0.8, 0.2]).log()
    z = torch.randn(20_000, 1, 1, generator=generator)
    grid = torch.linspace(8, -6, 201)
    for gamma, after in itertools.pairwise(grid):
        mean = (prior + evidence(z, gamma.expand(len(z), 1), table)).softmax(dim=-1) @ table
        z = STEPS[name](z, mean, gamma, after, torch.randn(z.shape, generator=generator))
    share = float((z > 0).float().mean())
    if name == "q":  # forgets z at every step: right in the mean alone, which many steps push to a mode
        assert share > 0.8
    else:
        assert share == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_a_step_of_a_known_token_keeps_the_marginal(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.full((200_000, 1, 1), 1.5)
    gamma, after = torch.tensor(2.0), torch.tensor(0.5)
    z = diffuse(x, gamma.expand(len(x), 1), torch.randn(x.shape, generator=generator))
    out = STEPS[name](z, x, gamma, after, torch.randn(x.shape, generator=generator))
    alpha, sigma = alpha_sigma(after)
    assert float(out.mean()) == pytest.approx(float(1.5 * alpha), abs=0.01)
    assert float(out.std()) == pytest.approx(float(sigma), abs=0.01)


def test_a_step_that_is_skipped_leaves_no_trace_in_the_warp() -> None:
    warp = Warp(ProcessConfig())
    warp.observe(torch.linspace(-1, 9, 100), torch.full((100,), float("nan")))
    warp.settle(~KEPT)
    warp.observe(torch.linspace(-1, 9, 500), torch.ones(500))
    warp.settle(KEPT)
    assert torch.equal(warp.losses, torch.ones_like(warp.losses))


@pytest.mark.parametrize("tilt", [0.0, 1.5, 7.0])
def test_the_slope_of_a_path_is_the_derivative_of_its_noise_levels(tilt: float) -> None:
    warp = Warp(ProcessConfig())
    gamma = torch.linspace(-1, 9, 5000)
    warp.observe(gamma, torch.sigmoid(1.5 * (gamma - 4)))
    warp.settle(KEPT)
    path, u = NoisePath(warp.double(), 4, tilt), (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000
    moved = path.slope(u).mean(dim=0)
    torch.testing.assert_close(moved, torch.full((4,), 10.0, dtype=torch.float64), atol=0.01, rtol=0)
    found = (path.gamma(u + 1e-7) - path.gamma(u - 1e-7)) / 2e-7
    assert float(((found - path.slope(u)).abs() > 1e-3).double().mean()) < 0.01  # but at the edges of bins
