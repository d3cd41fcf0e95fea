"""What a budget buys: laws are found again where they are known, intervals cover, and nothing is said beyond."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from core.errors import UserError
from factory import plan
from factory.plan import Point, Table, fit, offers


def points(floor: float, exponent: float, noise: float = 0.0, seed: int = 0, measured: bool = False) -> list[Point]:
    random = np.random.default_rng(seed)
    rows = []
    for examples in (1000, 2000, 4000, 8000, 16000):
        above = 3 * examples**-exponent * math.exp(noise * random.normal())
        rows.append(Point(examples=examples, value=floor + above, floor=floor if measured else None))
    return rows


def known(**changes: Any) -> Table:
    curve = {"data": "rings", "network": "8, 16", "parameters": 100, "metric": "loss", "batch": 32, "source": "here"}
    curve |= {"points": [point.model_dump() for point in points(0.2, 0.3, 0.02)]}
    speed = {"data": "rings", "network": "8, 16", "device": "cpu", "examples_per_second": [50, 200], "source": "here"}
    return Table.model_validate({"curves": [curve], "speeds": [speed], **changes})


def test_a_power_law_above_a_floor_is_found_again() -> None:
    law = fit(points(0.2, 0.5))
    assert law.exponent == pytest.approx(0.5, abs=0.02)
    assert law.at(3000)[0] == pytest.approx(0.2 + 3 * 3000**-0.5, rel=1e-3)
    above = fit(points(0.2, 0.5, measured=True))  # of what is above
    assert above.at(3000)[0] == pytest.approx(3 * 3000**-0.5, rel=1e-6)


@pytest.mark.parametrize("measured", [True, False])
def test_nine_of_ten_more_trainings_lie_in_the_interval(measured: bool) -> None:
    inside = []
    for seed in range(300):
        law = fit(points(0.2, 0.5, 0.1, seed, measured))
        other = (0 if measured else 0.2) + 3 * 5000**-0.5 * math.exp(
            0.1 * np.random.default_rng(10_000 + seed).normal()
        )
        inside.append(law.at(5000)[1] <= other <= law.at(5000)[2])
    assert np.mean(inside) == pytest.approx(plan.CONFIDENCE, abs=0.05)


def test_students_t_is_that_of_scipy() -> None:
    wanted = [stats.t.ppf(0.95, freedom) for freedom in range(1, len(plan._T) + 1)]
    np.testing.assert_allclose(plan._T, wanted, atol=1e-3)


def test_a_budget_within_what_was_measured_has_an_offer_and_its_slowest_case() -> None:
    (one,) = offers(1, "cpu", "rings", known=known())
    assert (one.examples, one.fewest, one.trainings) == (6000, 3000, 5)
    law = fit(points(0.2, 0.3, 0.02))
    assert one.value == pytest.approx(law.at(6000)[0])
    assert one.high == pytest.approx(law.at(3000)[2])
    assert offers(1, "mine", "rings", rate=100, known=known())[0].examples == 6000


def test_another_network_is_as_much_faster_than_the_jobs_as_where_both_were_measured() -> None:
    curve, speed = known().curves[0].model_dump(), known().speeds[0].model_dump()
    speeds = [
        {**speed, "examples_per_second": (100, 100)},
        {**speed, "device": "gpu", "examples_per_second": (50, 50)},
        {**speed, "network": "4, 8", "examples_per_second": (150, 600)},
    ]
    both = known(curves=[curve, {**curve, "network": "4, 8"}], speeds=speeds, jobs={"rings": "8, 16"})

    def seen(**asked: Any) -> dict[str, tuple[int, bool]]:
        made = offers(1, asked.pop("device", None), "rings", known=both, **asked)
        return {one.network: (one.examples, one.calculated) for one in made}

    assert seen() == {"8, 16": (6000, False)}  # cpu, the first device; 18,000 of the other are beyond
    assert seen(device="gpu") == {"8, 16": (3000, False), "4, 8": (9000, True)}
    assert seen(rate=20) == {"8, 16": (1200, False), "4, 8": (3600, True)}
    (alone,) = offers(1, None, "rings", known=both)
    assert plan.choice([alone]) == "6,000 examples of network 8, 16, the only one that was measured for such a budget"


@pytest.mark.parametrize(
    ("minutes", "device", "data", "says"),
    [
        (60, "cpu", "rings", "rings: 8, 16, loss: 360,000 examples; measured: 1,000 to 16,000, 0.333 to 1.33 minutes"),
        (0.1, "cpu", "rings", "beyond what was measured"),
        (1, "abacus", "rings", "--device: found abacus; for rings: cpu; or your own speed by --rate"),
        (1, "cpu", "sounds", "--data: found sounds; measured: rings"),
    ],
)  # fmt: skip
def test_nothing_is_said_beyond_what_was_measured(minutes: float, device: str, data: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        offers(minutes, device, data, known=known())
    assert says in str(error.value)


def test_a_network_is_refused_once_by_the_law_that_goes_farthest() -> None:
    curve = known().curves[0].model_dump()
    short = {**curve, "metric": "distance", "points": curve["points"][:4]}
    with pytest.raises(UserError) as error:
        offers(60, "cpu", "rings", known=known(curves=[curve, short]))
    assert "8, 16, loss" in str(error.value)
    assert "distance" not in str(error.value)


def test_a_speed_that_nobody_measured_is_told_from_one_that_was() -> None:
    speed = {**known().speeds[0].model_dump(), "examples_per_second": (1, 9000), "calculated": True}
    with pytest.raises(UserError, match="the speed is calculated, 1 to 9,000 a second: give yours by --rate"):
        offers(1, "cpu", "rings", known=known(speeds=[speed]))


def test_networks_that_cannot_be_told_apart_are_named() -> None:
    curve = known().curves[0].model_dump()
    both = [curve, {**curve, "network": "16, 32", "parameters": 400}]
    far = {**curve, "network": "4, 8", "points": [{**point, "value": 3 * point["value"]} for point in curve["points"]]}
    made = offers(1, "any", "rings", rate=100, known=known(curves=[*both, far]))
    assert plan.choice(made).endswith("cannot be told from 16, 32 by these trainings")


def test_the_table_of_the_package_has_a_law_for_each_curve_and_says_where_from() -> None:
    for curve in plan.table().curves:
        law = fit(curve.points)
        assert law.exponent > 0
        assert curve.source
    networks = {(curve.data, curve.network) for curve in plan.table().curves}
    assert {(speed.data, speed.network) for speed in plan.table().speeds} <= networks


@pytest.mark.parametrize("rows", [points(0.2, 0.5)[:3], [points(0.2, 0.5)[0]] * 5])
def test_too_few_points_make_no_law(rows: list[Point]) -> None:
    with pytest.raises(ValueError, match="a law needs"):
        fit(rows)
