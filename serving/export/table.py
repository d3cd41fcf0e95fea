"""A sampler as a table: what each step makes of the state x, of the denoiser's estimates D, and of fresh noise n.

    x' = x.x + denoised.D + before.D_before + noise.n

All samplers of core/samplers.py are of this form: of first order (DDIM, DDPM), or with one estimate before
(DPM-Solver++ 2M; Heun's method, whose step is two rows). The table is read off the sampler itself, so there is no
second copy of its formulas: it is run on coordinates, in which every estimate and every noise is an axis of its own.
Whoever samples elsewhere needs a loop over the rows, and no sampler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from core import samplers
from core.errors import UserError
from core.images.config import ImageSample

TOLERANCE = 1e-9
_TERMS = ("x", "denoised", "before", "noise")


@dataclass(frozen=True)
class Row:
    """One evaluation of the denoiser at noise level `sigma`, and the coefficients of the state after it.

    `guidance` and `autoguidance` are the weights at this noise level; 1 is none.
    """

    sigma: float
    x: float
    denoised: float
    before: float
    noise: float
    guidance: float = 1.0
    autoguidance: float = 1.0


@dataclass(frozen=True)
class Table:
    """A sampler: it starts from `start` times noise; its last state is the image."""

    start: float
    rows: tuple[Row, ...]

    @property
    def noises(self) -> int:
        """Draws of noise that it takes, with that of the start."""
        return 1 + sum(row.noise != 0 for row in self.rows)

    def json(self) -> dict[str, Any]:
        """As configuration files have it."""
        return {"start": self.start, "rows": [asdict(row) for row in self.rows]}


def table_of(settings: ImageSample, sigmas: Tensor, guide: bool) -> Table:
    """The table of a sampler with its guidance.

    Args:
        settings: how samples are drawn.
        sigmas: noise levels float64 [steps + 1], as `choose_sigmas` gives them.
        guide: whether the model has a guide, a worse network that autoguidance leads away from.

    Raises:
        UserError: the sampler is not of this form.
    """
    probe = _Probe(axes=4 * len(sigmas) + 4)  # at most two evaluations a step, and two noises
    x = float(sigmas[0]) * probe.noise()
    if settings.start == "estimate":
        x = samplers.estimated_start(probe.denoiser, x, float(sigmas[0]))
    last = samplers.SAMPLERS[settings.sampler](probe.denoiser, x, sigmas, noise=probe.noise)
    states = [*probe.states, last]
    rows = []
    for i, sigma in enumerate(probe.sigmas):
        now, denoised, before, fresh = probe.solve(states, i, settings.sampler)
        guided = settings.guidance_low < sigma <= settings.guidance_high
        away = guide and sigma > settings.guidance_low
        guidance, autoguidance = settings.guidance if guided else 1.0, settings.autoguidance if away else 1.0
        rows.append(Row(sigma, now, denoised, before, fresh, guidance, autoguidance))
    return Table(float(sigmas[0]), tuple(rows))


class _Probe:
    """Coordinates in which a sampler is linear: an axis for each estimate, and one for each noise."""

    def __init__(self, axes: int) -> None:
        self._axes, self._used = axes, 0
        self.states: list[Tensor] = []  # at which the denoiser was asked
        self.sigmas: list[float] = []
        self._estimates: list[Tensor] = []
        self._noises: list[tuple[int, Tensor]] = []  # with the number of evaluations before it

    def _axis(self) -> Tensor:
        axis = torch.zeros(self._axes, dtype=torch.float64)
        axis[self._used] = 1
        self._used += 1
        return axis

    def noise(self) -> Tensor:
        axis = self._axis()
        self._noises.append((len(self.states), axis))
        return axis

    def denoiser(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.states.append(x.clone())
        self.sigmas.append(float(sigma))
        self._estimates.append(self._axis())
        return self._estimates[-1]

    def solve(self, states: Sequence[Tensor], i: int, name: str) -> tuple[float, float, float, float]:
        """The coefficients (x, denoised, before, noise) that lead from state i to the next: the simplest that do."""
        drawn = [axis for before, axis in self._noises if before == i + 1]
        terms = {"x": states[i], "denoised": self._estimates[i]}
        if len(drawn) == 1:
            terms["noise"] = drawn[0]
        for known in (terms, {**terms, "before": self._estimates[i - 1]} if i > 0 else terms):
            basis = torch.stack(list(known.values()), dim=1)
            found = torch.linalg.lstsq(basis, states[i + 1][:, None], driver="gelsd").solution[:, 0]
            if float((basis @ found - states[i + 1]).abs().max()) < TOLERANCE * float(states[i + 1].abs().max()):
                values = dict(zip(known, found.tolist(), strict=True))
                x, denoised, before, noise = (round(values.get(one, 0.0), 15) + 0.0 for one in _TERMS)
                return x, denoised, before, noise
        raise UserError(f"sample.sampler: {name} needs more than one estimate before; such a sampler has no table")
