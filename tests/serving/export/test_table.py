"""A sampler's table gives what the sampler gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core import noise, samplers
from core.errors import UserError
from core.images.config import ImageSample
from serving.export.table import table_of


def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """Of no meaning, and not linear."""
    return torch.tanh(x / (1 + float(sigma))) + 0.1 * x.square() / (1 + float(sigma) ** 2)


@pytest.mark.parametrize("start", ["noise", "estimate"])
@pytest.mark.parametrize("name", sorted(samplers.SAMPLERS))
def test_a_loop_over_the_rows_is_the_sampler(name: str, start: str) -> None:
    settings = ImageSample.model_validate({"sampler": name, "steps": 7, "start": start})
    sigmas = noise.karras_sigmas(7, 0.02, 20.0)
    draws = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).double()
    source = iter(draws)
    x = 20.0 * next(source)
    if start == "estimate":
        x = samplers.estimated_start(denoiser, x, 20.0)
    wanted = samplers.SAMPLERS[name](denoiser, x, sigmas, noise=lambda: next(source))

    table, source, before = table_of(settings, sigmas, False), iter(draws), torch.zeros(5)
    x = table.start * next(source)
    for row in table.rows:
        estimate = denoiser(x, torch.tensor(row.sigma, dtype=torch.float64))
        fresh = row.noise * next(source) if row.noise else 0.0
        x, before = row.x * x + row.denoised * estimate + row.before * before + fresh, estimate
    assert float((x - wanted).abs().max()) < 1e-9
    assert next(source).equal(draws[table.noises])
    assert len(table.rows) == samplers.evaluations(name, 7) + (start == "estimate")


def test_guidance_is_said_where_it_acts() -> None:
    settings = ImageSample(guidance=2.0, guidance_low=0.2, guidance_high=5.0, autoguidance=1.25)
    rows = table_of(settings, noise.karras_sigmas(16, 0.02, 20.0), True).rows
    assert {row.guidance for row in rows if 0.2 < row.sigma <= 5} == {2.0}
    assert {row.guidance for row in rows if not 0.2 < row.sigma <= 5} == {1.0}
    assert {row.autoguidance for row in rows if row.sigma > 0.2} == {1.25}
    assert {row.autoguidance for row in rows if row.sigma <= 0.2} == {1.0}
    assert {row.autoguidance for row in table_of(settings, noise.karras_sigmas(16, 0.02, 20.0), False).rows} == {1.0}


def test_a_sampler_that_has_no_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def three_before(denoiser, x, sigmas, *, noise=None, callback=None):  # type: ignore[no-untyped-def]
        seen = []
        for sigma in sigmas[:-1]:
            seen.append(denoiser(x, sigma))
            x = seen[-1] - 0.5 * seen[max(0, len(seen) - 3)]
        return x

    monkeypatch.setitem(samplers.SAMPLERS, "dpmpp", three_before)
    with pytest.raises(UserError, match="needs more than one estimate before"):
        table_of(ImageSample(steps=5), noise.karras_sigmas(5, 0.02, 20.0), False)
