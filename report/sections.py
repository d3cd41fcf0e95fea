"""What a section of the report is, and the ones every modality has: heading, steps, configuration, environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.evaluation import Decision, Sampling
from report.artifacts import Artifacts, Json, number, short_hash
from report.words import compact, count, duration, moment

SAMPLERS = {
    "dpmpp": "DPM-Solver++(2M)",
    "dpmpp_sde": "SDE-DPM-Solver++(2M)",
    "heun": "Heun",
    "ddim": "DDIM",
    "ddpm": "DDPM ancestral",
    "q": "q-sampling",
    "mixture": "drawn tokens",
}

TONES = {Decision.PROMOTE: "good", Decision.PROVISIONAL: "bad", Decision.KEEP: "quiet"}


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


def heading(artifacts: Artifacts) -> Json:
    """Job, description and the facts of the run in one sentence each."""
    run, model, data = artifacts.run, artifacts.model_facts, artifacts.data_facts
    config = mapping(run.get("config"))
    facts = []
    counts = mapping(data.get("counts"))
    if counts:
        unit = "images" if artifacts.modality == "images" else "characters"
        source = f" from {data['source']}" if data.get("source") else ""
        facts.append(("Data", f"{count(counts.get('train'))} training {unit}{source}"))
    seen = number(model.get("examples_seen"))
    if seen is not None:
        seconds = model.get("train_seconds")
        spent = f" in {duration(seconds)}" if number(seconds) is not None else ""
        facts.append(("Training", f"{count(seen)} examples seen{spent}"))
    searched = artifacts.search.json("search.json")
    if searched:
        best = ", ".join(f"{name} {value}" for name, value in mapping(searched.get("settings")).items())
        facts.append(("Search", f"best of {len(searched.get('trials') or [])} trials: {best}"))
    facts.append(("Sampling", _sampling(artifacts.sampling)))
    total = number(run.get("seconds"))
    when = moment(run.get("created")) if run.get("created") else ""
    facts.append(("Run", " · ".join(part for part in (when, duration(total) if total else "") if part)))
    title = run.get("job") or config.get("job") or data.get("source") or "Untitled run"
    return {
        "title": str(title),
        "description": str(run.get("description") or config.get("description") or ""),
        "facts": [(name, text) for name, text in facts if text],
        "verdict": verdict(artifacts),
        "run_id": str(run.get("id") or ""),
    }


def _sampling(drawn: Sampling) -> str:
    """How samples were drawn, in a line."""
    parts = [SAMPLERS.get(drawn.sampler or "", drawn.sampler or "")]
    if drawn.steps is not None:
        parts.append(f"{count(drawn.steps)} steps")
    if drawn.guidance is not None:
        parts.append(f"guidance {compact(drawn.guidance)}")
    if drawn.autoguidance not in (None, 1):
        parts.append(f"autoguidance {compact(drawn.autoguidance)}")
    if drawn.feedback:
        parts.append(f"feedback {compact(drawn.feedback)}")
    if drawn.count is not None:
        again = f" of which {count(drawn.redrawn)} were drawn again" if drawn.redrawn else ""
        parts.append(f"{count(drawn.count)} samples{again}")
    return ", ".join(part for part in parts if part)


def verdict(artifacts: Artifacts) -> Json:
    """How the run ended as a word, a sentence, and a tone (good, bad or quiet); empty if nothing is known."""
    status = str(artifacts.run.get("status") or "")
    if status == "failed":
        failed = next((s for s in _steps(artifacts.run) if s.get("state") == "failed"), {})
        where = f"Step {failed.get('name')} failed. {failed.get('error') or ''}".strip() if failed else ""
        if artifacts.run.get("interrupted"):
            return {"word": "Interrupted", "text": "It can be gone on with: run --resume.", "tone": "bad"}
        return {"word": "Failed", "text": where, "tone": "bad"}
    if artifacts.verdict is not None:
        tone = TONES[artifacts.verdict.decision]
        return {"word": artifacts.verdict.outcome.capitalize(), "text": artifacts.verdict.explanation, "tone": tone}
    if status == "running":
        now = [str(one.get("name")) for one in _steps(artifacts.run) if one.get("state") == "running"]
        return {"word": "Running", "text": f"Now {', '.join(now)}." if now else "", "tone": "quiet"}
    return {"word": status.capitalize(), "text": "", "tone": "quiet"} if status else {}


def timeline(artifacts: Artifacts) -> Section:
    """Each step as a bar, one after the other, in the order of the run."""
    steps = _steps(artifacts.run)
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


def configuration(artifacts: Artifacts) -> Section:
    """All settings, grouped by section, searchable."""
    model = (
        {"model": artifacts.model_facts.get("model")} if isinstance(artifacts.model_facts.get("model"), dict) else {}
    )
    config = mapping(artifacts.run.get("config")) or mapping(artifacts.model_facts.get("config")) or model
    if not config:
        return absent("configuration", "Configuration", "The run's configuration was not given.")
    loose = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    groups = ([("job", loose)] if loose else []) + [(k, v) for k, v in config.items() if isinstance(v, Mapping)]
    flat = [(str(name), list(flatten(mapping(values)))) for name, values in groups]
    digest = short_hash(artifacts.run.get("config_hash"), 12)
    return Section(
        "configuration", "Configuration", "configuration.html", {"groups": flat, "config": config, "hash": digest}
    )


def environment(artifacts: Artifacts) -> Section:
    """Where the run happened: device, precision, versions, image."""
    facts: Json = {}
    for key in ("runner", "image", "code_version", "config_hash", "pipeline", "id"):
        if artifacts.run.get(key):
            facts[key.replace("_", " ")] = artifacts.run[key]
    told = {key: value for key, value in artifacts.model_notes.items() if key not in ("modality", "objective")}
    for source in (mapping(artifacts.run.get("environment")), told):
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
