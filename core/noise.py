"""The noise process, in one unit: x = y + sigma n, with y a clean image, n standard normal, sigma the noise level.

Epsilon prediction (DDPM), v prediction, rectified flow and EDM differ only in how the network is wrapped to become
a denoiser D(x, sigma) that estimates y (EDM, Karras et al. 2022, equation 7):

    D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)

so a parameterisation is one row of `coefficients`, and samplers, losses and guidance never know which it is.
A variance-preserving state at time t is x / sqrt(1 + sigma^2); a flow state at time t is x / (1 + sigma).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.transfer import to_device

Parameterisation = Literal["edm", "epsilon", "v", "flow"]


@dataclass(frozen=True)
class Coefficients:
    """D = skip x + out F(in_ x, ...), each of the shape of sigma."""

    skip: Tensor
    out: Tensor
    in_: Tensor

    def denoised(self, x: Tensor, output: Tensor) -> Tensor:
        """The estimate of the clean image that the network's `output` gives. [B, ...] -> [B, ...]"""
        return _like(self.skip, x) * x + _like(self.out, x) * output

    def target(self, x: Tensor, clean: Tensor) -> Tensor:
        """The network output that would denoise `x` to exactly `clean`. [B, ...] -> [B, ...]"""
        return (clean - _like(self.skip, x) * x) / _like(self.out, x)


def coefficients(kind: Parameterisation, sigma: Tensor, sigma_data: float = 0.5) -> Coefficients:
    """How a network that predicts `kind` becomes a denoiser at noise level `sigma` [B].

    edm      EDM, table 1; the target has unit variance for data of standard deviation `sigma_data`.
    epsilon  F = n on the variance-preserving state (Ho et al. 2020): D = x - sigma F.
    v        F = alpha n - s y with alpha = 1/sqrt(1+sigma^2), s = sigma alpha (Salimans and Ho 2022).
    flow     F = n - y on (1-t) y + t n, t = sigma/(1+sigma) (Liu et al. 2022).
    """
    if kind == "edm":
        total = sigma**2 + sigma_data**2
        return Coefficients(sigma_data**2 / total, sigma * sigma_data / total.sqrt(), total.rsqrt())
    if kind == "epsilon":
        return Coefficients(torch.ones_like(sigma), -sigma, (1 + sigma**2).rsqrt())
    if kind == "v":
        return Coefficients(1 / (1 + sigma**2), -sigma * (1 + sigma**2).rsqrt(), (1 + sigma**2).rsqrt())
    if kind == "flow":
        return Coefficients(1 / (1 + sigma), -sigma / (1 + sigma), 1 / (1 + sigma))
    raise ValueError(f"parameterisation {kind!r} is not one of edm, epsilon, v, flow")


def output_weight(
    kind: Literal["output", "min_snr", "constant"],
    sigma: Tensor,
    out: Tensor,
    sigma_data: float = 0.5,
    gamma: float = 5.0,
) -> Tensor:
    """Weight lambda c_out^2 of the squared error of the network's output F, at each `sigma` [B] (EDM, equation 8).

    lambda weighs |D - y|^2; `out` is c_out of the parameterisation.

    output    lambda = 1/c_out^2: EDM's own for edm, the "simple" loss of DDPM, v prediction and flow for theirs.
    min_snr   lambda = min(1/sigma^2, gamma/sigma_data^2) (Hang et al. 2023).
    constant  lambda = 1.
    """
    if kind == "output":
        return torch.ones_like(sigma)
    if kind == "min_snr":
        return (sigma**-2).clamp(max=gamma / sigma_data**2) * out**2
    return torch.ones_like(sigma) * out**2


# --- flow time and DDPM's discrete schedule


def flow_time(sigma: Tensor) -> Tensor:
    """Rectified flow's t in [0, 1) of a noise level."""
    return sigma / (1 + sigma)


def sigma_of_flow_time(t: Tensor) -> Tensor:
    """The noise level of rectified flow's t in [0, 1)."""
    return t / (1 - t)


def linear_beta_sigmas(steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 2e-2) -> Tensor:
    """Noise levels of DDPM's linear-beta schedule, rising, float64 [steps]: sigma_t = sqrt((1 - abar_t) / abar_t)."""
    betas = torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)
    log_abar = torch.log1p(-betas).cumsum(0)
    return torch.expm1(-log_abar).sqrt()


def schedule_time(sigma: Tensor, table: Tensor) -> Tensor:
    """The position of `sigma` in a rising `table` of noise levels, from 0 to 1, linear in ln sigma between entries."""
    table = to_device(table.log(), sigma.device).to(sigma.dtype)
    log_sigma = sigma.log().clamp(table[0], table[-1])
    high = torch.searchsorted(table, log_sigma.contiguous()).clamp(1, len(table) - 1)
    fraction = (log_sigma - table[high - 1]) / (table[high] - table[high - 1])
    return (high - 1 + fraction) / (len(table) - 1)


# --- which noise levels training sees


@dataclass(frozen=True)
class Density:
    """Distribution of training noise levels, given by its quantile function, so that draws can be stratified."""

    kind: Literal["lognormal", "logit_normal", "uniform"]
    location: float = -1.2
    scale: float = 1.2
    table: Tensor | None = None  # rising noise levels, for "uniform"

    def quantile(self, u: Tensor) -> Tensor:
        """Noise levels at probabilities `u` in [0, 1]. [B] -> [B]

        lognormal: ln sigma ~ N(location, scale^2), EDM. logit_normal: logit t ~ N(location, scale^2) in flow time,
        Esser et al. 2024; as logit t = ln sigma it is the same family. uniform: over the entries of `table`.
        """
        if self.kind == "uniform":
            if self.table is None:
                raise ValueError("density 'uniform' needs a table of noise levels")
            table = to_device(self.table, u.device).to(u.dtype)
            return table[(u * len(table)).long().clamp(0, len(table) - 1)]
        normal = math.sqrt(2) * torch.erfinv((2 * u.double() - 1).clamp(-1 + 1e-6, 1 - 1e-6))
        return (self.location + self.scale * normal).exp().to(u)


# --- noise levels that sampling steps through: falling, the last one 0


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """EDM equation 5: evenly spaced in sigma^(1/rho), then 0. float64 [steps + 1]"""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    sigmas[-1], sigmas[0] = sigma_min, sigma_max  # exactly, however this machine rounds a power
    return _append_zero(sigmas)


def flow_sigmas(steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Evenly spaced in flow time t = sigma/(1+sigma), then 0. float64 [steps + 1]"""
    ends = flow_time(torch.tensor([sigma_max, sigma_min], dtype=torch.float64))
    return _append_zero(sigma_of_flow_time(torch.linspace(float(ends[0]), float(ends[1]), steps, dtype=torch.float64)))


def schedule_sigmas(steps: int, table: Tensor) -> Tensor:
    """`steps` entries of a rising `table`, evenly spaced and falling from its last to its first, then 0. [steps + 1]

    With as many steps as entries this is DDPM's own sequence.

    Raises:
        ValueError: more steps than the table has entries.
    """
    if steps > len(table):
        raise ValueError(f"steps is {steps}; the schedule has {len(table)}")
    index = torch.linspace(len(table) - 1, 0, steps, dtype=torch.float64).round().long()
    return _append_zero(table.double()[index])


def _append_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def _like(coefficient: Tensor, x: Tensor) -> Tensor:
    """[B] or [] -> [B, 1, ...] to multiply `x`."""
    return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - coefficient.ndim))
