"""Samplers of one signature: from noise to images along a falling list of noise levels.

    sample_x(denoiser, x, sigmas, *, noise=None, callback=None) -> images [B, ...]

`denoiser(x, sigma)` estimates the clean image from x = y + sigma n, sigma a scalar on the host; `x` starts as
sigmas[0] times standard normal noise; `sigmas` [steps + 1] falls, and ends with 0 for finished images. The
probability-flow ODE is dx/dsigma = (x - D) / sigma (EDM, equation 1). A network evaluation (NFE) is one call of the
denoiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]  # x [B, ...] and sigma [], of the host, to the clean image [B, ...]
Normals = Callable[[], Tensor] | None  # fresh standard normals [B, ...], for samplers that add noise


@dataclass(frozen=True)
class Step:
    """What a callback sees before each step: the state `x`, its estimate `denoised` of the end, and where it is."""

    index: int
    sigma: float
    x: Tensor
    denoised: Tensor


Callback = Callable[[Step], None] | None


def estimated_start(denoiser: Denoiser, x: Tensor, sigma: float) -> Tensor:
    """Where to start at `sigma` instead of at noise `x` alone: x + D(x), as an Euler step from infinite noise leads.

    A state at `sigma` is y + sigma n, and noise alone lacks y. That shows wherever many pixels agree: a constant image
    of c in d pixels stands sqrt(d) c / sigma above the noise, 0.6 for MNIST's darkness at sigma 40.
    """
    return x + denoiser(x, _level(sigma, x))


class Sampler(Protocol):
    """The one signature."""

    def __call__(
        self, denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Normals = None, callback: Callback = None
    ) -> Tensor: ...


def sample_ddim(
    denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Normals = None, callback: Callback = None, eta: float = 0.0
) -> Tensor:
    """DDIM (Song et al. 2021, equation 12), which is Euler's method; `eta` adds noise, 1 being DDPM. First order."""
    for i, (sigma, after) in enumerate(_pairs(sigmas)):
        denoised = denoiser(x, _level(sigma, x))
        _report(callback, i, sigma, x, denoised)
        up = eta * after * max(0.0, 1 - (after / sigma) ** 2) ** 0.5  # eq. 16: posterior standard deviation
        down = max(0.0, after**2 - up**2) ** 0.5
        x = denoised + (down / sigma) * (x - denoised)  # eq. 12
        if up > 0:
            x = x + up * _required(noise)()
    return x


sample_ddpm: Sampler = partial(sample_ddim, eta=1.0)
"""Ancestral sampling (Ho et al. 2020, algorithm 2) with the posterior's variance ("fixed small").

In sigma: x_s ~ N(D + (s/t)^2 (x - D), s^2 (1 - (s/t)^2)) for a step from noise level t to s.
"""


def sample_heun(
    denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Normals = None, callback: Callback = None
) -> Tensor:
    """Heun's method (EDM, algorithm 1 without churn). Second order, 2 steps - 1 evaluations when it ends at 0."""
    for i, (sigma, after) in enumerate(_pairs(sigmas)):
        denoised = denoiser(x, _level(sigma, x))
        _report(callback, i, sigma, x, denoised)
        slope = (x - denoised) / sigma  # algorithm 1, line 4
        euler = x + (after - sigma) * slope  # line 5
        if after == 0:
            return euler
        slope_after = (euler - denoiser(euler, _level(after, x))) / after  # line 7
        x = x + (after - sigma) * (slope + slope_after) / 2  # line 8
    return x


def sample_dpmpp(
    denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Normals = None, callback: Callback = None, eta: float = 0.0
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order at one evaluation a step.

    With time lambda = -ln sigma the ODE is dx/dlambda = D - x; the step is exact for a D linear in lambda, its
    slope taken from the previous evaluation. The first and the last step (to sigma 0) are of first order. `eta` adds
    noise: dx = (1 + eta) (D - x) dlambda + sigma sqrt(2 eta) dw has the same distributions at every sigma.
    """
    previous: Tensor | None = None
    h_previous = 0.0
    for i, (sigma, after) in enumerate(_pairs(sigmas)):
        denoised = denoiser(x, _level(sigma, x))
        _report(callback, i, sigma, x, denoised)
        if after == 0:
            return denoised
        ratio = after / sigma
        h = -math.log(ratio)
        keep = ratio ** (1 + eta)
        estimate = denoised
        if previous is not None:
            estimate = denoised + (denoised - previous) * (h / (2 * h_previous))
        x = keep * x + (1 - keep) * estimate
        if eta > 0:
            x = x + after * (1 - ratio ** (2 * eta)) ** 0.5 * _required(noise)()
        previous, h_previous = denoised, h
    return x


sample_dpmpp_sde: Sampler = partial(sample_dpmpp, eta=1.0)
"""SDE-DPM-Solver++(2M) (Lu et al. 2022): new noise at every step washes out what a network got wrong."""


SAMPLERS: dict[str, Sampler] = {
    "dpmpp": sample_dpmpp,
    "dpmpp_sde": sample_dpmpp_sde,
    "heun": sample_heun,
    "ddim": sample_ddim,
    "ddpm": sample_ddpm,
}


def evaluations(sampler: str, steps: int) -> int:
    """Network evaluations (NFE) that `steps` steps of a sampler cost when they end at sigma 0."""
    return 2 * steps - 1 if sampler == "heun" else steps


def noises(sampler: str, steps: int) -> int:
    """Times that a sampler asks for noise in `steps` steps that end at sigma 0: for the last one never."""
    return steps - 1 if sampler in ("ddpm", "dpmpp_sde") else 0


def _pairs(sigmas: Tensor) -> list[tuple[float, float]]:
    values = [float(s) for s in sigmas]
    if len(values) < 2 or any(not a > b >= 0 for a, b in pairwise(values)):
        raise ValueError(f"sigmas must fall and stay non-negative, at least two of them; found {values[:4]}...")
    return list(pairwise(values))


def _level(sigma: float, x: Tensor) -> Tensor:
    """A scalar [] of the host, where reading it waits for no device."""
    return torch.tensor(sigma, dtype=x.dtype)


def _report(callback: Callback, index: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
    if callback is not None:
        callback(Step(index, sigma, x, denoised))


def _required(noise: Normals) -> Callable[[], Tensor]:
    if noise is None:
        raise ValueError("a stochastic sampler needs a noise source")
    return noise
