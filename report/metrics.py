"""The metrics of a run: what each is called and means, its row with its floor, and the table of all."""

from __future__ import annotations

import re
from collections.abc import Iterable

from core.images.glossary import GLOSSARY as IMAGES
from core.metrics import SHARE, Metric, find
from core.text.glossary import GLOSSARY as TEXT
from report import sections
from report.artifacts import Artifacts, Json, short_hash
from report.sections import Section, absent
from report.words import count, figure, spread

GLOSSARY = {**IMAGES, **TEXT}
ORDER = {name: place for place, name in enumerate(GLOSSARY)}
DIRECTIONS = {"lower": "lower is better", "higher": "higher is better", "floor": "near the floor is better", "": ""}


def label(name: str) -> str:
    """The metric's name for people; of one that no glossary knows its own name in plain letters."""
    known = find(GLOSSARY, name)
    if known is None:
        return name.replace("_", " ").replace("/", " ").capitalize()
    definition, variant = known
    if not variant:
        return definition.label
    counts = definition.counts
    return f"{definition.label}, {variant} {counts}" if counts else f"{definition.label} ({variant})"


def row(name: str, metric: Metric) -> Json:
    """One metric that has a value, as the table and the gallery show it."""
    known = find(GLOSSARY, name)
    definition = known[0] if known else None
    assert metric.value is not None
    value, floor, deviation = metric.value, metric.floor, metric.se if metric.sd is None else metric.sd
    percent = bool(definition and definition.unit == SHARE) and max(abs(value), abs(floor or 0.0)) <= 1.0
    better = metric.better or (definition.better if definition else "")
    return {
        "name": name,
        "title": label(name),
        "text": metric.text or (definition.explanation if definition else ""),
        "better": better,
        "direction": DIRECTIONS[better],
        "value": figure(value, percent=percent),
        "number": value,
        "sd": spread(deviation, value, percent=percent) if deviation is not None else "",
        "floor": figure(floor, percent=percent) if floor is not None else "",
        # A ratio to a floor that is noise around zero, as an unbiased estimate has, says nothing.
        "ratio": f"{value / floor:.2f}×" if floor is not None and floor > (deviation or 0.0) else "",
        "n": count(metric.n) if metric.n is not None else "",
        "judge": short_hash(metric.judge),
        "judge_full": metric.judge or "",
        "gauge": gauge(value, floor, percent),
    }


def meaning(name: str) -> str:
    """What the metric says, in a sentence or two; empty for one that no glossary knows."""
    known = find(GLOSSARY, name)
    return known[0].explanation if known else ""


def ordered(names: Iterable[str]) -> list[str]:
    """Metrics of the model's own samples before those of other modes, in the order of the glossary."""
    return sorted(names, key=_place)


def metric_rows(artifacts: Artifacts) -> list[Json]:
    """Every metric that has a value: the model's own samples before other modes, in the order of the glossary."""
    names = ordered(name for name, metric in artifacts.metrics.items() if metric.value is not None)
    return [row(name, artifacts.metrics[name]) for name in names]


def _place(name: str) -> tuple[bool, int]:
    known = find(GLOSSARY, name)
    if known is None:
        return False, len(ORDER)
    definition, variant = known
    return bool(variant) and not definition.counts, ORDER[definition.name]


def plain_names(text: str, artifacts: Artifacts) -> str:
    """`text` with the names of metrics as people say them."""
    names = sorted(artifacts.metrics, key=len, reverse=True)
    if names:
        known = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)")
        text = known.sub(lambda match: label(match[0]), text)
    return text[:1].upper() + text[1:]


def heading(artifacts: Artifacts) -> Json:
    """The heading of a run, with the names of metrics in the gate's reason as people say them."""
    head = sections.heading(artifacts)
    decided = head["verdict"]
    return {**head, "verdict": {**decided, "text": plain_names(decided["text"], artifacts)} if decided else {}}


def gauge(value: float, floor: float | None, percent: bool) -> Json | None:
    """Where value and floor lie on a small ruler, in per cent of its length."""
    if floor is None or value < 0 or floor < 0:
        return None
    top = 1.0 if percent else 1.25 * max(value, floor, 1e-12)
    low = 0.0
    if percent and min(value, floor) > 0.55:
        low = 0.5
    elif floor > 0 and 0.75 < value / floor < 1.33:
        # Both near each other: stretch, or the difference could not be seen.
        low, top = 0.6 * floor, 1.4 * floor
    return {
        "value": 100 * (value - low) / (top - low),
        "floor": 100 * (floor - low) / (top - low),
        "from": figure(low, percent=percent),
        "to": figure(top, percent=percent),
    }


def metrics(artifacts: Artifacts) -> Section:
    """The table of all metrics."""
    rows = metric_rows(artifacts)
    if not rows:
        return absent("metrics", "Metrics", "This run has no evaluation.")
    judge, key = artifacts.judge_facts, artifacts.measured.evaluation_key
    facts, told = [], set()
    for one in rows:  # a metric of several modes is described once
        one["text"], text = "" if one["text"] in told else one["text"], one["text"]
        told.add(text)
    if judge.accuracy is not None:
        number_of = f" of {count(judge.n)} test images" if judge.n is not None else ""
        facts.append(f"The judge reads {figure(judge.accuracy, percent=True)}{number_of} correctly.")
    if key:
        facts.append(f"Evaluation key {short_hash(key, 12)}: only runs with the same key are compared by the gate.")
    lead = (
        "The floor is the same metric for real data against real data at the same count, the best value a perfect "
        "model could be expected to reach."
    )
    return Section("metrics", "Metrics", "metrics.html", {"rows": rows, "facts": facts}, lead=lead)
