"""The gate: in doubt the champion stays."""

from __future__ import annotations

import math
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import GateConfig
from core.errors import IncomparableError
from core.evaluation import Decision, Evaluation, Verdict, read_metrics
from core.images.config import ImageModel
from core.images.metrics import frechet_distance, frechet_error
from core.images.model import ImageShape, describe
from core.images.terms import equal_terms
from core.metrics import Metric
from core.storage import integrity
from factory.gate import Challenge, compare, decide, standard_error
from factory.registry import Registry

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
    decision, reason, *_ = decide(required, metrics(distance=5.0, accuracy=0.94), None)
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
    decision, reason, *_ = decide(gate(require={"strange": 1.0}), metrics(distance=1.0, strange=2.0), None)
    assert decision == KEEP
    assert "does not state" in reason


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False),
       st.sampled_from(["lower", "higher"]), st.floats(0, 2))  # fmt: skip
def test_two_models_never_both_beat_each_other(a: float, b: float, better: str, share: float) -> None:
    rule = gate(better=better, min_improvement=share)
    one = decide(rule, metrics(distance=a), metrics(distance=b))[0]
    other = decide(rule, metrics(distance=b), metrics(distance=a))[0]
    assert (one, other) != (PROMOTE, PROMOTE)


def test_a_first_model_far_from_its_floor_is_provisional() -> None:
    def first(value: float, floor: float | None, **settings: Any) -> Decision:
        return decide(gate(**settings), {"distance": Metric(value=value, floor=floor)}, None).decision

    assert first(289, 57, first_floors=5) == Decision.PROVISIONAL
    assert first(0.30, 0.26) == PROMOTE
    assert first(2.0, 0.26) == Decision.PROVISIONAL
    assert first(2.0, 0.26, first_floors=10) == first(2.0, 0.26, first_floors=0) == PROMOTE
    assert first(2.0, None) == first(2.0, 0.0) == PROMOTE  # without a floor there is no limit
    assert first(0.1, 0.9, better="higher") == Decision.PROVISIONAL
    assert first(0.5, 0.9, better="higher") == PROMOTE


def test_a_first_model_whose_measure_is_in_doubt_is_provisional_and_says_why() -> None:
    near = {"distance": Metric(value=0.3, floor=0.26, doubt="30 images a side are too few")}
    ruling = decide(gate(), near, None)
    assert ruling.decision == Decision.PROVISIONAL
    assert "cannot be trusted: 30 images a side are too few" in ruling.reason
    trusted = decide(gate(first_floors=0), near, None)
    assert trusted.decision == PROMOTE
    assert trusted.reason.endswith("no champion to beat; in doubt: 30 images a side are too few")


@pytest.mark.parametrize(("old", "decision"), [(0.9, PROMOTE), (0.31, KEEP), (0.2, KEEP)])
def test_a_measure_in_doubt_decides_between_two_models_and_the_verdict_says_the_doubt(
    old: float, decision: Decision
) -> None:
    doubtful = {"distance": Metric(value=0.3, se=0.04, floor=0.26, doubt="30 images a side are too few")}
    ruling = decide(gate(), doubtful, {"distance": Metric(value=old, se=0.04)})
    assert ruling.decision == decision
    assert ruling.reason.endswith("; in doubt: 30 images a side are too few")


def test_a_provisional_verdict_says_how_the_model_comes_into_service() -> None:
    said = {decision: Verdict(decision=decision, reason="so it is").explanation for decision in Decision}
    assert "textdiffusion promote MODEL@VERSION" in said[Decision.PROVISIONAL]
    assert "gate.first_floors: 0" in said[Decision.PROVISIONAL]
    assert said[Decision.PROMOTE] == said[Decision.KEEP] == "so it is"


def test_a_first_model_whose_precision_is_zero_is_provisional() -> None:
    near = {"distance": Metric(value=0.3, floor=0.26)}
    ruling = decide(gate(), {**near, "precision": Metric(value=0.0)}, None)
    assert (ruling.decision, ruling.reason[-11:]) == (Decision.PROVISIONAL, "precision 0")
    assert decide(gate(first_floors=0), {**near, "precision": Metric(value=0.0)}, None).decision == PROMOTE
    assert decide(gate(), {**near, "precision": Metric(value=0.9)}, None).decision == PROMOTE


def test_a_gain_within_its_uncertainty_does_not_promote_and_the_interval_is_said() -> None:
    def gained(new: float, **settings: Any) -> Any:
        sides = ({"distance": Metric(value=value, se=0.04)} for value in (new, 0.50))
        return decide(gate(**settings), *sides)

    lucky, better = gained(0.45), gained(0.40)
    assert lucky.decision == KEEP
    assert lucky.reason.startswith("no improvement beyond chance")
    assert better.decision == PROMOTE
    assert better.interval == pytest.approx((0.1 - 1.2816 * 0.04 * 2**0.5, 0.1 + 1.2816 * 0.04 * 2**0.5), abs=1e-4)
    assert "gain 0.1, from 0.0275 to 0.172 (each at 90%)" in better.reason
    assert gained(0.40, confidence=0.99).decision == KEEP


def test_models_measured_on_the_same_parts_are_compared_part_by_part() -> None:
    hard = np.linspace(1, 5, 64)  # some parts of a text are harder than others, for every model
    old, new = (Metric(value=float(parts.mean()), se=0.15, parts=parts.tolist()) for parts in (hard, hard - 0.05))
    assert standard_error(new, old) == pytest.approx(0, abs=1e-9)
    assert decide(gate(), {"distance": new}, {"distance": old}).decision == PROMOTE
    assert decide(gate(), {"distance": new}, {"distance": old.model_copy(update={"parts": None})}).decision == KEEP


def test_a_champion_from_before_errors_were_stated_has_the_challengers() -> None:
    assert standard_error(Metric(value=1, se=0.3), Metric(value=1)) == pytest.approx(0.3 * 2**0.5)
    assert standard_error(Metric(value=1), Metric(value=1)) is None


def test_equal_models_are_promoted_at_most_at_the_stated_rate_and_a_clearly_better_one_nearly_always() -> None:
    """All pairs of models whose samples are normal features, measured as images are; the better one is 0.3 of a
    standard deviation nearer in two of four features."""
    draws, models, n = np.random.default_rng(0), 40, 200
    real = draws.normal(size=(500, 4))

    def measured(shift: float) -> dict[str, Metric]:
        samples = draws.normal(size=(n, 4))
        samples[:, :2] += shift
        return {"distance": Metric(value=frechet_distance(samples, real), se=frechet_error(samples, real))}

    equal, better = ([measured(shift) for _ in range(models)] for shift in (0.5, 0.2))

    def promoted(pairs: Any) -> float:
        return float(np.mean([decide(gate(), new, old).decision == PROMOTE for new, old in pairs]))

    assert promoted(permutations(equal, 2)) <= 0.1 + 0.03  # 10 % is the default; the rest is chance of this draw
    assert promoted(product(better, equal)) >= 0.95


def write_images(folder: Path, names: list[str], side: int = 8, weights: str = "w") -> Path:
    """A model's folder without its weights: what the gate reads before it draws."""
    shape = ImageShape(channels=1, height=side, width=side, class_names=tuple(names))
    integrity.write_json(folder / "model.json", {**describe(ImageModel(), shape), "weights_sha256": weights})
    return folder


@pytest.mark.parametrize(("policy", "decision"), [("keep", KEEP), ("promote", PROMOTE)])
def test_a_champion_that_cannot_be_measured_is_named_and_the_policy_decides(
    policy: str, decision: Decision, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "registry")
    old = write_images(tmp_path / "old", ["a", "b"], weights="old")
    champion = registry.register(
        "m", {"model": old}, metrics={}, evaluation_key="another", weights_sha256="old", lineage={}
    )
    model = write_images(tmp_path / "new", ["a", "b"], side=16, weights="new")
    Evaluation(metrics=metrics(distance=1.0), evaluation_key="key").write(tmp_path / "evaluation")
    challenge = Challenge("images", model, tmp_path / "evaluation", tmp_path, tmp_path, {}, {})
    verdict = compare(gate(incomparable=policy), challenge, champion, tmp_path / "scratch")
    assert (verdict.decision, verdict.not_comparable) == (decision, True)
    assert verdict.reason.startswith("not comparable: the champion makes images of 8x8 in grey, the data set has 16x16")
    assert str(tmp_path) not in verdict.reason
    assert Verdict.model_validate(verdict.facts()).outcome == {KEEP: "champion stays", PROMOTE: "promoted"}[decision]


def test_a_champion_draws_the_classes_of_the_new_data_by_its_own_numbers(tmp_path: Path) -> None:
    champion = write_images(tmp_path / "old", ["cat", "dog", "fox"])

    def labels(names: list[str], sample: dict[str, Any]) -> Any:
        return equal_terms(champion, write_images(tmp_path / "new", names), tmp_path, sample).get("labels")

    assert labels(["cat", "dog", "fox"], {}) is None
    assert labels(["dog", "fox"], {}) == [1, 2]
    assert labels(["fox", "cat"], {"labels": [1, -1, 0]}) == [0, -1, 2]
    assert labels(["ant", "cat"], {"labels": [1]}) == [0]
    with pytest.raises(IncomparableError, match="does not know the class ant"):
        labels(["ant", "cat"], {})
