"""The noise process: conversions, densities and grids, against their definitions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from core import noise

KINDS = ["edm", "epsilon", "v", "flow"]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(log_sigma=st.floats(-5, 4), seed=st.integers(0, 1000))
def test_the_target_of_every_parameterisation_denoises_to_the_clean_image(kind, log_sigma, seed):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(2, 1, 3, 3, generator=generator, dtype=torch.float64)
    sigma = torch.full((2,), math.exp(log_sigma), dtype=torch.float64)
    x = clean + sigma[:, None, None, None] * torch.randn(2, 1, 3, 3, generator=generator, dtype=torch.float64)
    wrap = noise.coefficients(kind, sigma, 0.7)
    torch.testing.assert_close(wrap.denoised(x, wrap.target(x, clean)), clean, rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(log_sigma=st.floats(-4, 4))
def test_targets_are_the_textbook_ones(log_sigma):
    sigma = torch.tensor([math.exp(log_sigma)], dtype=torch.float64)
    clean, n = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([[-1.2]], dtype=torch.float64)
    x = clean + sigma * n
    alpha = (1 + sigma**2).rsqrt()
    expected = {"epsilon": n, "v": alpha * n - sigma * alpha * clean, "flow": n - clean}
    for kind, target in expected.items():
        torch.testing.assert_close(noise.coefficients(kind, sigma).target(x, clean), target, rtol=1e-8, atol=1e-8)
    t = noise.flow_time(sigma)
    torch.testing.assert_close(noise.coefficients("flow", sigma).in_ * x, (1 - t) * clean + t * n)
    torch.testing.assert_close(noise.sigma_of_flow_time(t), sigma)


@settings(deadline=None)
@given(log_sigma=st.floats(-4, 4), sigma_data=st.floats(0.1, 2))
def test_edm_gives_unit_variance_to_inputs_and_targets(log_sigma, sigma_data):
    sigma = torch.tensor([math.exp(log_sigma)], dtype=torch.float64)
    wrap = noise.coefficients("edm", sigma, sigma_data)
    total = sigma**2 + sigma_data**2
    torch.testing.assert_close(wrap.in_**2 * total, torch.ones_like(sigma))
    variance = ((1 - wrap.skip) ** 2 * sigma_data**2 + wrap.skip**2 * sigma**2) / wrap.out**2
    torch.testing.assert_close(variance, torch.ones_like(sigma))
    weight = noise.output_weight("output", sigma, wrap.out) / wrap.out**2
    torch.testing.assert_close(weight, total / (sigma * sigma_data) ** 2)  # EDM, table 1


def test_edm_with_unit_data_is_v_prediction_of_opposite_sign():
    sigma = torch.logspace(-2, 2, 9, dtype=torch.float64)
    edm, v = noise.coefficients("edm", sigma, 1.0), noise.coefficients("v", sigma)
    torch.testing.assert_close(edm.skip, v.skip)
    torch.testing.assert_close(edm.out, -v.out)


def test_unknown_parameterisation_is_refused():
    with pytest.raises(ValueError, match="edm, epsilon, v, flow"):
        noise.coefficients("x0", torch.ones(1))  # type: ignore[arg-type]


def test_min_snr_weight_is_capped_at_low_noise():
    sigma, out = torch.tensor([0.01, 2.0]), torch.tensor([3.0, 1.0])
    assert noise.output_weight("min_snr", sigma, out, sigma_data=1.0).tolist() == pytest.approx([9 * 5.0, 0.25])


def test_lognormal_density_has_its_quantiles():
    u = torch.tensor([0.01, 0.5, 0.9])
    expected = stats.lognorm(s=1.2, scale=math.exp(-1.2)).ppf(u.numpy())
    assert noise.Density("lognormal", -1.2, 1.2).quantile(u).tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_logit_normal_density_is_normal_in_logit_of_flow_time():
    u = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    t = noise.flow_time(noise.Density("logit_normal", 0.3, 0.8).quantile(u))
    assert stats.kstest(torch.logit(t.double()).numpy(), stats.norm(0.3, 0.8).cdf).pvalue > 1e-3


def test_uniform_density_gives_every_entry_of_the_schedule_its_share():
    table = noise.linear_beta_sigmas(10)
    sigma = noise.Density("uniform", table=table).quantile((torch.arange(100) + 0.5) / 100)
    assert all((sigma == entry.float()).sum() == 10 for entry in table)


def test_linear_beta_sigmas_are_diffusers_ones():
    from diffusers import DDPMScheduler

    abar = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear").alphas_cumprod.double()
    torch.testing.assert_close(noise.linear_beta_sigmas(), ((1 - abar) / abar).sqrt(), rtol=1e-4, atol=1e-6)


def test_schedule_time_inverts_the_table():
    table = noise.linear_beta_sigmas(50)
    torch.testing.assert_close(noise.schedule_time(table, table), torch.linspace(0, 1, 50, dtype=torch.float64))
    assert noise.schedule_time(torch.tensor([1e-9, 1e9]), table).tolist() == [0, 1]


def test_grids_fall_from_their_largest_to_their_smallest_level_and_then_to_zero():
    table = noise.linear_beta_sigmas(1000)
    for grid in [noise.karras_sigmas(12, 0.02, 40), noise.flow_sigmas(12, 0.02, 40), noise.schedule_sigmas(12, table)]:
        assert len(grid) == 13
        assert grid[-1] == 0
        assert (grid.diff() < 0).all()
    assert noise.karras_sigmas(12, 0.02, 40)[[0, 11]].tolist() == pytest.approx([40, 0.02])
    assert noise.flow_sigmas(12, 0.02, 40)[[0, 11]].tolist() == pytest.approx([40, 0.02])
    assert noise.schedule_sigmas(1000, table)[:-1].tolist() == table.flip(0).tolist()


def test_more_steps_than_the_schedule_has_are_refused():
    with pytest.raises(ValueError, match="the schedule has 10"):
        noise.schedule_sigmas(11, noise.linear_beta_sigmas(10))
