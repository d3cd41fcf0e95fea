"""What a budget buys, by power laws through measured trainings: factory/scale_law.json, `textdiffusion plan`.

A law is  value = floor + a examples^-b  with the residuals' spread in logarithms. Where no floor was measured, as of a
validation loss, it is what leaves the smallest residuals. An interval is that of one more training: Student's t of the
points that are left over the parameters, wider towards the ends. Beyond what was measured nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from core import storage
from core.config import Frozen, validate
from core.errors import UserError

YOURS = "yours"  # the device of --rate
TABLE = Path(__file__).with_name("scale_law.json")
CONFIDENCE = 0.9
_T = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)  # two-sided 90 %, by degrees of freedom
_SHARES = 1 - np.logspace(0, -3, 200)  # of the lowest value, tried as the floor

Positive = Annotated[float, Field(gt=0)]


class Point(Frozen):
    """One training: what came of so many examples; `floor` is that of real data, where there is one."""

    examples: int = Field(ge=1)
    value: Positive
    floor: float | None = None
    seed: int | None = None


class Curve(Frozen):
    """Trainings of one network on one data set that differ in nothing but examples and seed."""

    data: str
    network: str
    variant: str = ""  # how it was trained unlike the job, where it was
    parameters: int = Field(ge=1)
    metric: str
    batch: int = Field(ge=1)
    source: str
    points: tuple[Point, ...] = Field(min_length=3)

    @property
    def name(self) -> str:
        return f"{self.network} {self.variant}".rstrip()


class Speed(Frozen):
    """Examples a second of the network on a device, from the slowest to the fastest; `calculated`: nobody ran it."""

    data: str
    network: str
    device: str
    examples_per_second: tuple[Positive, Positive]
    calculated: bool = False
    source: str


class Table(Frozen):
    """All that was measured; `jobs` is the network of each data set's job, whose speed is known on most devices."""

    curves: tuple[Curve, ...]
    speeds: tuple[Speed, ...]
    jobs: dict[str, str] = Field(default_factory=dict)

    def speed(self, data: str, network: str, device: str) -> Speed | None:
        asked = (data, network, device)
        return next((one for one in self.speeds if (one.data, one.network, one.device) == asked), None)

    def devices(self, data: str) -> list[str]:
        """Those on which something of `data` has a speed."""
        return list(dict.fromkeys(one.device for one in self.speeds if one.data == data))

    def ratio(self, data: str, network: str) -> float | None:
        """How many times as fast as the job's a network is, where both have a speed."""
        job = self.jobs.get(data, network)
        if network == job:
            return 1.0
        for device in self.devices(data):
            one, other = self.speed(data, network, device), self.speed(data, job, device)
            if one and other:
                return math.sqrt(math.prod(one.examples_per_second) / math.prod(other.examples_per_second))
        return None


@dataclass(frozen=True)
class Law:
    """value = floor + exp(level - exponent ln examples), within [low, high] examples."""

    floor: float
    level: float
    exponent: float
    spread: float  # standard deviation of the residuals' logarithms
    freedom: int  # points beyond the parameters that were fitted
    places: tuple[float, ...]  # ln examples of the points

    def at(self, examples: float) -> tuple[float, float, float]:
        """The value at `examples`, and the interval of one more training."""
        x, mean = math.log(examples), float(np.mean(self.places))
        scatter = sum((place - mean) ** 2 for place in self.places)
        error = self.spread * math.sqrt(1 + 1 / len(self.places) + (x - mean) ** 2 / scatter)
        half = _T[min(self.freedom, len(_T)) - 1] * error
        middle = self.level - self.exponent * x
        value, low, high = (self.floor + math.exp(middle + side) for side in (0, -half, half))
        return value, low, high

    def covers(self, examples: float) -> bool:
        return min(self.places) - 1e-9 <= math.log(examples) <= max(self.places) + 1e-9


def fit(points: Sequence[Point]) -> Law:
    """The law through `points`; those with a floor are fitted above it, the law is then of what is above.

    Raises:
        ValueError: there are too few points, they are of one number of examples, or some have a floor and some not.
    """
    floors = {point.floor is None for point in points}
    if len(floors) != 1 or len({point.examples for point in points}) < 2:
        raise ValueError("a law needs two numbers of examples, and a floor at each point or at none")
    measured = floors == {False}
    if len(points) < 3 + (not measured):
        raise ValueError("a law needs one point more than it has parameters")
    x = np.log([point.examples for point in points])
    y = np.array([point.value - (point.floor or 0) for point in points])
    if y.min() <= 0:
        raise ValueError("a law needs values above their floors")
    floor = 0.0 if measured else float(min(_SHARES * y.min(), key=lambda floor: _misfit(x, y, floor)))
    spread, level, exponent = _line(x, np.log(y - floor))
    freedom = len(points) - 2 - (not measured)
    return Law(floor, level, exponent, spread * math.sqrt((len(points)) / freedom), freedom, tuple(x.tolist()))


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """(root of the mean squared residual, level, exponent) of y = level - exponent x."""
    slope, level = np.polyfit(x, y, 1)
    return float(np.sqrt(np.mean((y - level - slope * x) ** 2))), float(level), -float(slope)


def _misfit(x: np.ndarray, y: np.ndarray, floor: float) -> float:
    """Mean squared residual of ln y itself: logarithms of what is above are the wider apart, the higher the floor."""
    _, level, exponent = _line(x, np.log(y - floor))
    return float(np.mean(np.log((floor + np.exp(level - exponent * x)) / y) ** 2))


@cache
def table() -> Table:
    """What was measured, from the package."""
    return validate(Table, storage.read_json(TABLE), TABLE.name)


@dataclass(frozen=True)
class Offer:
    """What one network makes of the budget; `value` has the interval of one more training at `CONFIDENCE`."""

    network: str
    parameters: int
    device: str
    calculated: bool  # the speed
    examples: int
    fewest: int  # examples at the slowest speed that was measured
    metric: str
    value: float
    low: float
    high: float
    trainings: int


def offers(
    minutes: float, device: str | None, data: str, rate: float | None = None, known: Table | None = None
) -> list[Offer]:
    """What each measured network makes of `minutes` on `device`, the best first; the same metric comes together.

    Args:
        device: None: the first on which something was measured.
        rate: examples a second of the job's network, measured by the user; others are as much faster as in the table.

    Raises:
        UserError: the data or device was not measured, or the budget lies beyond what was for every network.
    """
    known = known or table()
    curves = [curve for curve in known.curves if curve.data == data]
    if not curves:
        raise UserError(f"--data: found {data}; measured: {', '.join(dict.fromkeys(c.data for c in known.curves))}")
    device = YOURS if rate is not None else device or next(iter(known.devices(data)), "")
    made: list[Offer] = []
    refused: dict[str, tuple[float, str]] = {}  # by name, of the curve that goes farthest
    for curve in curves:
        found = _speed(known, curve, device, rate)
        if found is None:
            continue
        slow, fast, calculated = found
        law, fewest, examples = fit(curve.points), 60 * minutes * slow, 60 * minutes * math.sqrt(slow * fast)
        if not (law.covers(examples) and law.covers(fewest)):
            says = max(law.places), _beyond(curve, law, slow, fast, examples, calculated)
            refused[curve.name] = max(refused.get(curve.name, says), says)
            continue
        value, low, _ = law.at(examples)
        high = law.at(fewest)[2]
        numbers = {"value": value, "low": low, "high": high, "trainings": len(curve.points)}
        made.append(
            Offer(curve.name, curve.parameters, device, calculated, round(examples), round(fewest), curve.metric,
                  **numbers)  # type: ignore[arg-type]
        )  # fmt: skip
    if not made and not refused:
        devices = ", ".join(known.devices(data))
        raise UserError(f"--device: found {device}; for {data}: {devices}; or your own speed by --rate")
    if not made:
        where = "; ".join(says for _, says in refused.values())
        raise UserError(f"--minutes {minutes:g}: beyond what was measured for {data}: {where}")
    return sorted(made, key=lambda one: (one.metric, one.value))


def _beyond(curve: Curve, law: Law, slow: float, fast: float, examples: float, calculated: bool) -> str:
    """Why a curve says nothing of a budget, and of which it would."""
    low, high = (math.exp(end(law.places)) for end in (min, max))
    minutes = low / slow / 60, high / fast / 60
    span = f", {minutes[0]:.3g} to {minutes[1]:.3g} minutes" if minutes[0] <= minutes[1] else ""
    doubt = f"; the speed is calculated, {slow:,.0f} to {fast:,.0f} a second: give yours by --rate"
    return (
        f"{curve.name}, {curve.metric}: {examples:,.0f} examples; measured: {low:,.0f} to {high:,.0f}{span}"
        f"{doubt if calculated else ''}"
    )


def _speed(known: Table, curve: Curve, device: str, rate: float | None) -> tuple[float, float, bool] | None:
    """Slowest and fastest examples a second of the curve's network on `device`, and whether they are calculated: from
    the job's network there, and how much faster this one is where both were measured."""
    own = known.speed(curve.data, curve.network, device)
    if own is not None:
        return *own.examples_per_second, own.calculated
    job, ratio = known.jobs.get(curve.data, curve.network), known.ratio(curve.data, curve.network)
    there = known.speed(curve.data, job, device)
    speeds = (rate, rate) if rate is not None else there.examples_per_second if there else None
    if ratio is None or speeds is None:
        return None
    return speeds[0] * ratio, speeds[1] * ratio, job != curve.network


def choice(made: Sequence[Offer]) -> str:
    """What to choose, in a sentence: the best of a metric, and which of the others cannot be told from it."""
    best = made[0]
    others = [one for one in made[1:] if one.metric == best.metric]
    if not others:
        return f"{best.examples:,} examples of network {best.network}, the only one that was measured for such a budget"
    alike = [one.network for one in others if one.low < best.high]
    doubt = f"; cannot be told from {', '.join(alike)} by these trainings" if alike else ""
    return f"choose network {best.network} with {best.examples:,} examples{doubt}"
