"""The gate: whether a challenger replaces the champion, and why. In doubt the champion stays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import steps, storage
from core.config import GateConfig, canonical_json, validate
from core.errors import UserError
from core.names import inside
from core.records import ModelFacts, read, read_metrics
from factory.registry import Registry
from factory.versions import Version

Metrics = Mapping[str, Any]
PROMOTE, KEEP = "promote", "keep"


def decide(gate: GateConfig, challenger: Metrics, champion: Metrics | None) -> tuple[str, str]:
    """("promote" or "keep", the reason), from two metrics.json contents; `champion` is None if there is none.

    A metric that is missing or not finite never promotes.
    """
    for name, worst in gate.require.items():
        value = _value(challenger, name)
        if value is None:
            return KEEP, f"required metric {name} is missing or not a finite number"
        better = _direction(gate, name, challenger)
        if better is None:
            return KEEP, f"required metric {name} does not state whether lower or higher is better"
        if value > worst if better == "lower" else value < worst:
            relation = "above" if better == "lower" else "below"
            return KEEP, f"{name} {value:.4g} is {relation} the required {worst:.4g}"
    new = _value(challenger, gate.metric)
    if new is None:
        return KEEP, f"metric {gate.metric} of the challenger is missing or not a finite number"
    if champion is None:
        return PROMOTE, f"first model: {gate.metric} {new:.4g}, no champion to beat"
    old = _value(champion, gate.metric)
    if old is None:
        return KEEP, f"metric {gate.metric} of the champion is missing or not a finite number: they cannot be compared"
    gain = old - new if gate.better == "lower" else new - old
    needed = gate.min_improvement * abs(old)
    against = f"{gate.metric} {new:.4g} against the champion's {old:.4g} ({gate.better} is better)"
    if gain <= 0:
        return KEEP, f"no improvement: {against}"
    if gain < needed:
        return KEEP, f"improvement below {gate.min_improvement:.2%}: {against}"
    return PROMOTE, f"improved: {against}"


def compare(
    modality: str,
    *,
    gate: Mapping[str, Any],
    sample: Mapping[str, Any],
    evaluate: Mapping[str, Any],
    registry: str,
    model_name: str,
    dataset: Path,
    judge: Path,
    model: Path,
    evaluation: Path,
    scratch: Path,
) -> dict[str, Any]:
    """Judges the challenger in `model`, measured in `evaluation`, against the registered champion on equal terms.

    If both were measured by the same evaluation (same data, judge, sampling and settings, so the same evaluation
    key), recorded metrics are compared. Otherwise the champion draws new samples with the challenger's settings and
    is measured on the challenger's data by its judge, in the folder `scratch`.

    Returns:
        {"decision", "reason", "challenger": {...}, "champion": {...} or None}
    """
    config = validate(GateConfig, dict(gate), "gate")
    metrics = storage.read_json(evaluation / "metrics.json")
    if not isinstance(metrics, Mapping):
        raise UserError(f"{evaluation / 'metrics.json'}: expected metrics by name; this evaluation is not whole")
    key = evaluation_key(evaluation)
    weights = read(ModelFacts, str(model / "model.json")).weights_sha256
    champion = Registry(registry).champion(model_name)
    challenger_facts = {"weights_sha256": weights, "evaluation_key": key, "metric": _value(metrics, config.metric)}
    if champion is None:
        decision, reason = decide(config, metrics, None)
        return {"decision": decision, "reason": reason, "challenger": challenger_facts, "champion": None}
    same = bool(key) and key == champion.evaluation_key
    if champion.weights_sha256 == weights:
        decision, reason = KEEP, f"the challenger is the champion: the same weights as version {champion.version}"
        champion_metrics: Metrics = champion.metrics
    else:
        champion_metrics = champion.metrics
        if not same:
            champion_metrics = _measure_again(modality, champion, sample, evaluate, dataset, judge, scratch)
        decision, reason = decide(config, metrics, champion_metrics)
        if not same:
            reason += "; the champion was sampled and measured again, its evaluation was another one"
    champion_facts = {
        "version": champion.version,
        "weights_sha256": champion.weights_sha256,
        "evaluation_key": champion.evaluation_key,
        "metric": _value(champion_metrics, config.metric),
        "measured_again": not same and champion.weights_sha256 != weights,
    }
    return {"decision": decision, "reason": reason, "challenger": challenger_facts, "champion": champion_facts}


def evaluation_key(evaluation: Path) -> str:
    """What makes two evaluations comparable, as the evaluation itself states it; empty if it states nothing."""
    facts = storage.read_json(evaluation / "evaluation.json")
    if not isinstance(facts, Mapping):
        raise UserError(f"{evaluation / 'evaluation.json'}: expected facts by name; this evaluation is not whole")
    key = facts.get("evaluation_key") or facts.get("key") or ""
    return key if isinstance(key, str) else canonical_json(key)


def _measure_again(
    modality: str,
    champion: Version,
    sample: Mapping[str, Any],
    evaluate: Mapping[str, Any],
    dataset: Path,
    judge: Path,
    scratch: Path,
) -> Metrics:
    champion.verify()
    paths: dict[str, Path] = {}
    for part in sorted({name.split("/")[0] for name in champion.files}):
        paths[part] = inside(scratch, part)
        storage.copy_tree(champion.folder(part), paths[part])
    samples, out = scratch / "samples", scratch / "evaluation"
    autoregressive = paths.get("autoregressive")
    steps.sample(modality, sample, paths["model"], samples, autoregressive=autoregressive)
    steps.evaluate(modality, evaluate, dataset, judge, paths["model"], samples, out, autoregressive=autoregressive)
    return read_metrics(str(out / "metrics.json"))


def _value(metrics: Metrics, name: str) -> float | None:
    entry = metrics.get(name)
    value = entry.get("value") if isinstance(entry, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _direction(gate: GateConfig, name: str, metrics: Metrics) -> str | None:
    if name == gate.metric:
        return gate.better
    better = metrics[name].get("better")
    return better if better in ("lower", "higher") else None
