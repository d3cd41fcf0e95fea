"""The gate: in doubt the champion stays."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import GateConfig
from core.evaluation import Decision, read_metrics
from core.metrics import Metric
from factory.gate import decide

PROMOTE, KEEP = Decision.PROMOTE, Decision.KEEP


def metrics(**values: Any) -> dict[str, Metric]:
    """Metrics as they are read from a file that holds `values`."""
    better = {"accuracy": "higher", "distance": "lower"}
    content = {name: {"value": value, "floor": 0, "n": 1, "better": better.get(name)} for name, value in values.items()}
    return read_metrics(content, "metrics.json")


def gate(**settings: Any) -> GateConfig:
    return GateConfig.model_validate({"metric": "distance", **settings})


@pytest.mark.parametrize(
    ("better", "new", "old", "decision"),
    [
        ("lower", 1, 2, PROMOTE),
        ("lower", 2, 1, KEEP),
        ("lower", 1, 1, KEEP),
        ("higher", 2, 1, PROMOTE),
        ("higher", 1, 2, KEEP),
    ],
)
def test_only_a_strictly_better_challenger_is_promoted(better: str, new: float, old: float, decision: str) -> None:
    assert decide(gate(better=better), metrics(distance=new), metrics(distance=old))[0] == decision


def test_the_first_model_is_promoted_if_it_meets_the_requirements() -> None:
    assert decide(gate(), metrics(distance=5.0), None)[0] == PROMOTE
    required = gate(require={"accuracy": 0.95})
    assert decide(required, metrics(distance=5.0, accuracy=0.96), None)[0] == PROMOTE
    decision, reason = decide(required, metrics(distance=5.0, accuracy=0.94), None)
    assert (decision, reason) == (KEEP, "accuracy 0.94 is below the required 0.95")


def test_improvement_must_reach_the_stated_share() -> None:
    wanted = gate(min_improvement=0.1)
    assert decide(wanted, metrics(distance=9.1), metrics(distance=10.0))[0] == KEEP
    assert decide(wanted, metrics(distance=8.9), metrics(distance=10.0))[0] == PROMOTE
    assert decide(wanted, metrics(distance=-11.1), metrics(distance=-10.0))[0] == PROMOTE


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "0.1", True, [0.1]])
def test_what_is_not_a_finite_number_never_promotes(value: Any) -> None:
    assert decide(gate(), metrics(distance=value), None)[0] == KEEP
    assert decide(gate(), metrics(distance=value), metrics(distance=1.0))[0] == KEEP
    assert decide(gate(), metrics(distance=0.5), metrics(distance=value))[0] == KEEP
    assert decide(gate(require={"accuracy": 0.5}), metrics(distance=0.5, accuracy=value), None)[0] == KEEP


@pytest.mark.parametrize("found", [{}, {"distance": None}, {"distance": 3.0}, {"distance": {}}])
def test_a_missing_or_partial_metric_never_promotes(found: dict[str, Any]) -> None:
    read = read_metrics(found, "metrics.json")
    assert decide(gate(), read, None)[0] == KEEP
    assert decide(gate(), metrics(distance=1.0), read)[0] == KEEP


def test_a_requirement_whose_direction_is_unknown_never_promotes() -> None:
    decision, reason = decide(gate(require={"strange": 1.0}), metrics(distance=1.0, strange=2.0), None)
    assert decision == KEEP
    assert "does not state" in reason


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False),
       st.sampled_from(["lower", "higher"]), st.floats(0, 2))  # fmt: skip
def test_two_models_never_both_beat_each_other(a: float, b: float, better: str, share: float) -> None:
    rule = gate(better=better, min_improvement=share)
    one = decide(rule, metrics(distance=a), metrics(distance=b))[0]
    other = decide(rule, metrics(distance=b), metrics(distance=a))[0]
    assert (one, other) != (PROMOTE, PROMOTE)
