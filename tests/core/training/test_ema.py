import pytest
import torch
from torch import nn

from core.training.ema import PowerEMA, exponent_of_std


@pytest.mark.parametrize(("std", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_exponents_are_those_printed_in_edm2(std: float, gamma: float) -> None:
    assert exponent_of_std(std) == pytest.approx(gamma, abs=0.005)


@pytest.mark.parametrize("std", [0.01, 0.05, 0.1, 0.2, 0.288])
def test_an_exponent_has_the_width_that_it_was_asked_for(std: float) -> None:
    """The standard deviation of t with density proportional to t^gamma on [0, 1] (EDM2, equation 123)."""
    gamma = exponent_of_std(std)
    first, second = (gamma + 1) / (gamma + 2), (gamma + 1) / (gamma + 3)
    assert (second - first**2) ** 0.5 == pytest.approx(std, rel=1e-6)


@pytest.mark.parametrize("std", [0.05, 0.1, 0.2])
def test_the_average_weighs_the_past_by_a_power_of_the_clock(std: float) -> None:
    """Against the definition: the weight of step k of n is the integral of t^gamma over that step."""
    model, gamma, steps = nn.Linear(1, 1, bias=False), exponent_of_std(std), 300
    nn.init.constant_(model.weight, 123.0)
    ema = PowerEMA(model, std)
    values = torch.randn(steps, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for step, value in enumerate(values, 1):
        nn.init.constant_(model.weight, float(value))
        ema.update(model, ema.kept(16 * step, 16))
    clock = torch.arange(steps + 1, dtype=torch.float64) / steps
    shares = clock[1:] ** (gamma + 1) - clock[:-1] ** (gamma + 1)
    assert float(ema.model.weight) == pytest.approx(float((shares * values).sum()), abs=1e-4)


def test_nothing_of_the_initial_weights_remains() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1e6)
    ema = PowerEMA(model, 0.05)
    nn.init.constant_(model.weight, 1.0)
    ema.update(model, ema.kept(128, 128))
    assert float(ema.model.weight) == 1.0


def test_buffers_follow_the_model() -> None:
    model = nn.BatchNorm1d(2)
    ema = PowerEMA(model, 0.05)
    model(torch.randn(8, 2))
    ema.update(model, ema.kept(8, 8))
    assert torch.equal(ema.model.running_mean, model.running_mean)
