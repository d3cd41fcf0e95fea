"""What a section of the report is, and the ones every modality has: heading, metrics, steps, configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from report.artifacts import Artifacts, Json, number, short_hash
from report.words import compact, count, duration, figure, meaning, moment, spread

SAMPLERS = {
    "dpmpp": "DPM-Solver++(2M)",
    "dpmpp_sde": "SDE-DPM-Solver++(2M)",
    "heun": "Heun",
    "ddim": "DDIM",
    "ddpm": "DDPM ancestral",
    "q": "q-sampling",
}


@dataclass(frozen=True)
class Section:
    """One part of the page: `template` draws `data`; with no template only the quiet `note` is shown."""

    id: str
    title: str
    template: str | None
    data: Json = field(default_factory=dict)
    note: str = ""
    lead: str = ""


def absent(id: str, title: str, note: str) -> Section:
    """A section whose artifact is missing: a heading with one quiet sentence."""
    return Section(id, title, None, note=note)


def mapping(value: object) -> Json:
    """`value` if it is a mapping, else an empty one."""
    return dict(value) if isinstance(value, Mapping) else {}


def heading(found: Artifacts) -> Json:
    """Job, verdict and the facts of the run in one sentence each."""
    run, model, data, sample = found.run, found.model_facts, found.data_facts, found.sample_facts
    config = mapping(run.get("config"))
    facts = []
    counts = mapping(data.get("counts"))
    if counts:
        unit = "images" if found.modality == "images" else "characters"
        source = f" from {data['source']}" if data.get("source") else ""
        facts.append(("Data", f"{count(counts.get('train'))} training {unit}{source}"))
    seen = number(model.get("examples_seen"))
    if seen is not None:
        seconds = found.model_notes.get("train_seconds", found.model_notes.get("seconds"))
        spent = f" in {duration(seconds)}" if number(seconds) is not None else ""
        facts.append(("Training", f"{count(seen)} examples seen{spent}"))
    searched = found.search.json("search.json")
    if searched:
        best = ", ".join(f"{name} {value}" for name, value in mapping(searched.get("settings")).items())
        facts.append(("Search", f"best of {len(searched.get('trials') or [])} trials: {best}"))
    if sample:
        parts = [SAMPLERS.get(str(sample.get("sampler")), str(sample.get("sampler") or ""))]
        if number(sample.get("steps")) is not None:
            parts.append(f"{count(sample['steps'])} steps")
        if number(sample.get("guidance")) is not None:
            parts.append(f"guidance {compact(float(sample['guidance']))}")
        if number(sample.get("autoguidance")) not in (None, 1):
            parts.append(f"autoguidance {compact(float(sample['autoguidance']))}")
        if number(sample.get("count")) is not None:
            parts.append(f"{count(sample['count'])} samples")
        facts.append(("Sampling", ", ".join(part for part in parts if part)))
    total = number(run.get("seconds"))
    decided = verdict(run)
    when = moment(run.get("created")) if run.get("created") else ""
    if run:
        facts.append(("Run", " · ".join(part for part in (when, duration(total) if total else "") if part)))
    title = run.get("job") or config.get("job") or data.get("source") or "Untitled run"
    return {
        "title": str(title),
        "description": str(run.get("description") or config.get("description") or ""),
        "facts": [(name, text) for name, text in facts if text],
        "verdict": {**decided, "text": plain_names(decided["text"], found)} if decided else {},
        "run_id": str(run.get("id") or ""),
    }


def verdict(run: Json) -> Json:
    """The gate's decision as a word, a sentence, and a tone: good, bad or quiet."""
    gate, status = mapping(run.get("gate")), str(run.get("status") or "")
    if status == "failed":
        failed = next((s for s in _steps(run) if s.get("state") == "failed"), {})
        where = f"Step {failed.get('name')} failed. {failed.get('error') or ''}".strip() if failed else ""
        return {"word": "Failed", "text": where, "tone": "bad"}
    decision = str(gate.get("decision") or "")
    if decision:
        promoted = decision.lower() in ("promote", "promoted", "register", "registered", "accept", "accepted", "pass")
        kept = decision.lower() in ("keep", "kept", "reject", "rejected", "fail")
        word = "Promoted" if promoted else "Champion kept" if kept else decision.capitalize()
        return {"word": word, "text": str(gate.get("reason") or ""), "tone": "good" if promoted else "quiet"}
    if status:
        return {"word": status.capitalize(), "text": "", "tone": "quiet"}
    return {}


def plain_names(text: str, found: Artifacts) -> str:
    """`text` with the names of metrics as people say them."""
    for name in sorted(map(str, found.metrics), key=len, reverse=True):
        title = meaning(name, mapping(found.metrics[name])).title
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", lambda _, title=title: title, text)  # type: ignore[misc]
    return text[:1].upper() + text[1:]


def metric_rows(found: Artifacts) -> list[Json]:
    """Every metric with its floor, ratio, count and judge, the most telling ones first."""
    rows = []
    for name, entry in found.metrics.items():
        entry = entry if isinstance(entry, Mapping) else {"value": entry}
        entry = dict(entry)
        known = meaning(str(name), entry)
        value, floor, deviation = (number(entry.get(key)) for key in ("value", "floor", "sd"))
        if value is None:
            continue
        percent = known.percent and (floor is None or abs(floor) <= 1.0)
        rows.append(
            {
                "name": str(name),
                "title": known.title,
                "text": known.text,
                "better": known.better,
                "rank": known.rank,
                "value": figure(value, percent=percent),
                "number": value,
                "sd": spread(deviation, value, percent=percent) if deviation is not None else "",
                "floor": figure(floor, percent=percent) if floor is not None else "",
                # A ratio to a floor that is noise around zero, as an unbiased estimate has, says nothing.
                "ratio": f"{value / floor:.2f}×" if floor is not None and floor > (deviation or 0.0) else "",
                "n": count(entry["n"]) if number(entry.get("n")) is not None else "",
                "judge": short_hash(entry.get("judge")),
                "judge_full": str(entry.get("judge") or ""),
                "gauge": gauge(value, floor, percent),
            }
        )
    return sorted(rows, key=lambda row: row["rank"])


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


def metrics(found: Artifacts) -> Section:
    """The table of all metrics."""
    rows = metric_rows(found)
    if not rows:
        return absent("metrics", "Metrics", "This run has no evaluation.")
    evaluation = found.evaluation_facts
    judge = mapping(found.judge_facts)
    facts = []
    if number(judge.get("accuracy")) is not None:
        accuracy = figure(judge["accuracy"], percent=True)
        number_of = f" of {count(judge['n'])} test images" if number(judge.get("n")) is not None else ""
        facts.append(f"The judge reads {accuracy}{number_of} correctly.")
    if evaluation.get("key") or evaluation.get("evaluation_key"):
        key = short_hash(evaluation.get("key") or evaluation.get("evaluation_key"), 12)
        facts.append(f"Evaluation key {key}: only runs with the same key are compared by the gate.")
    lead = (
        "The floor is the same metric for real data against real data at the same count, the best value a perfect "
        "model could be expected to reach."
    )
    return Section("metrics", "Metrics", "metrics.html", {"rows": rows, "facts": facts}, lead=lead)


def timeline(found: Artifacts) -> Section:
    """Each step as a bar, one after the other, in the order of the run."""
    steps = _steps(found.run)
    if not steps:
        return absent("steps", "Steps", "No run record was given, so there is no timeline.")
    total = sum(number(step.get("seconds")) or 0.0 for step in steps) or 1.0
    rows, start = [], 0.0
    for step in steps:
        seconds = number(step.get("seconds")) or 0.0
        state = "cached" if step.get("cached") else str(step.get("state") or "")
        rows.append(
            {
                "name": str(step.get("name") or "step"),
                "state": state,
                "left": 100 * start / total,
                "width": 100 * seconds / total,
                "seconds": duration(step.get("seconds")) if step.get("seconds") is not None else "–",
                "error": str(step.get("error") or ""),
            }
        )
        start += seconds
    hits = sum(row["state"] == "cached" for row in rows)
    lead = f"{duration(total)} in {len(rows)} steps" + (f", {hits} served from cache." if hits else ".")
    return Section("steps", "Steps", "steps.html", {"rows": rows}, lead=lead)


def configuration(found: Artifacts) -> Section:
    """All settings, grouped by section, searchable."""
    model = {"model": found.model_facts.get("model")} if isinstance(found.model_facts.get("model"), dict) else {}
    config = mapping(found.run.get("config")) or mapping(found.model_facts.get("config")) or model
    if not config:
        return absent("configuration", "Configuration", "The run's configuration was not given.")
    loose = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    groups = ([("job", loose)] if loose else []) + [(k, v) for k, v in config.items() if isinstance(v, Mapping)]
    flat = [(str(name), list(flatten(mapping(values)))) for name, values in groups]
    digest = short_hash(found.run.get("config_hash"), 12)
    return Section(
        "configuration", "Configuration", "configuration.html", {"groups": flat, "config": config, "hash": digest}
    )


def environment(found: Artifacts) -> Section:
    """Where the run happened: device, precision, versions, image."""
    facts: Json = {}
    for key in ("runner", "image", "code_version", "config_hash", "pipeline", "id"):
        if found.run.get(key):
            facts[key.replace("_", " ")] = found.run[key]
    told = {key: value for key, value in found.model_notes.items() if key not in ("modality", "objective")}
    for source in (mapping(found.run.get("environment")), told):
        for key, value in flatten(source):
            if isinstance(value, (str, int, float)) and len(str(value)) < 200:
                facts.setdefault(key.replace("_", " "), value)
    if not facts:
        return absent("environment", "Environment", "Nothing was recorded about the machine.")
    return Section("environment", "Environment", "environment.html", {"facts": list(facts.items())})


def _steps(run: Json) -> list[Json]:
    steps: Any = run.get("steps")
    return [mapping(step) for step in steps] if isinstance(steps, list) else []


def flatten(values: Json, prefix: str = "") -> list[tuple[str, object]]:
    """Nested settings as `section.key` and value."""
    rows: list[tuple[str, object]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            rows += flatten(dict(value), f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows
