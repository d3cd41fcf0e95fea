"""What a service has served as a page like a run's report: latencies, drift and its thresholds, the newest samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Unpack

import numpy as np

from core import storage
from core.metrics import Metric
from report import image_sections, text_sections
from report.artifacts import Artifacts, Folders, Json, read
from report.charts import Axis, Chart, Series, line_chart, steps
from report.metrics import label, meaning, row
from report.page import drawn, fill
from report.sections import Section, absent
from report.training import variants
from report.words import count, figure, moment

BINS = 40
PERCENTILES = (("p50", "ink"), ("p95", "accent"), ("p99", "dashed"))


def build(out: str | Path, facts: Json, seconds: Mapping[str, Sequence[float]], **folders: Unpack[Folders]) -> None:
    """Writes the page to the file or URI `out`. Raises OSError if it cannot.

    Args:
        out: the file.
        facts: as `textdiffusion watch --json` prints them.
        seconds: that requests took, by route.
        folders: `samples` that were served, and the `dataset` that the model learned.
    """
    storage.write_bytes(
        out, render(facts, seconds, read({"config": {"modality": facts["modality"]}}, **folders)).encode()
    )


def render(facts: Json, seconds: Mapping[str, Sequence[float]], artifacts: Artifacts) -> str:
    """The whole page as HTML text."""
    sections = [samples(artifacts, facts), drift(facts), latency(facts, seconds), requests(facts)]
    return fill(
        "page.html",
        scripts=("page.js", "parts.js", "report.js"),
        styles=("report.css",),
        what="report",
        modality=facts["modality"],
        head=heading(facts),
        path=None,
        key_metrics=[],
        sections=[drawn(one) for one in sections],
        faults=list(dict.fromkeys(artifacts.faults)),
        live=0,
    )


def heading(facts: Json) -> Json:
    """Model, what is said of it, and the facts in a line each."""
    latencies = [f"{one['route']} {_ms(one['p50_ms'])}, 95 % within {_ms(one['p95_ms'])}"
                 for one in facts["latencies"] if "p50_ms" in one]  # fmt: skip
    told = [
        ("Served", f"{count(facts['served'])} samples, {count(facts['kept'])} of them kept"),
        ("Steps", ", ".join(f"{step} ({count(n)})" for step, n in facts["steps"].items())),
        ("Latency", "; ".join(latencies[:3])),
        ("From", moment(facts["since"])),
        ("Until", moment(facts["until"])),
        ("Run", str(facts["run"])),
    ]
    return {
        "title": f"{facts['model']} {facts['version']} in service",
        "description": "",
        "facts": [(name, text) for name, text in told if text],
        "verdict": verdict(facts),
        "run_id": "",
    }


def verdict(facts: Json) -> Json:
    """Whether samples have drifted: a word, a sentence and a tone."""
    if facts["not_compared"]:
        return {"word": "Not compared", "text": facts["not_compared"], "tone": "quiet"}
    if facts["drifted"]:
        return {"word": "Drifted", "text": ", ".join(map(label, facts["drifted"])) + ".", "tone": "bad"}
    return {"word": "As measured", "text": f"No metric of {count(facts['count'])} samples has drifted.", "tone": "good"}


def samples(artifacts: Artifacts, facts: Json) -> Section:
    """The samples that were kept, beside real ones."""
    section = (text_sections if facts["modality"] == "text" else image_sections).samples(artifacts)
    if not section.template:
        return replace(section, note="No samples are kept.")
    return replace(section, lead=f"The newest {count(facts['kept'])} that were served, in their order.")


def drift(facts: Json) -> Section:
    """Each metric of what was served, beside what was measured, with the threshold that makes a drift."""
    if not facts["compared"]:
        return absent("drift", "Drift", facts["not_compared"] or "Nothing was compared.")
    rows = []
    for one in facts["compared"]:
        value = Metric(value=one["served"] or 0.0, floor=one["floor"])
        percent = row(one["metric"], value)["value"].endswith("%")
        text = {
            key: figure(one[key], percent=percent) for key in ("served", "measured", "floor", "worse_by", "threshold")
        }
        state = "drifted" if one["drifted"] else "as measured" if one["threshold"] is not None else "spread not known"
        rows.append({"name": one["metric"], "title": label(one["metric"]), "text": meaning(one["metric"]), **text,
                     "n": count(one["n"]), "state": state, "doubt": one["doubt"] or ""})  # fmt: skip
    lead = (
        "What was served, and as many of the samples that measured the model, in the same mixture of classes, by the "
        "same judge. A metric has drifted if it is worse by more than three standard errors of the difference."
    )
    return Section("drift", "Drift", "drift.html", {"rows": rows}, lead=lead)


def latency(facts: Json, seconds: Mapping[str, Sequence[float]]) -> Section:
    """The distribution of each route, and percentiles over time."""
    charts = [(route, histogram(route, values)) for route, values in sorted(seconds.items()) if values]
    shown = [one for one in (variants(charts), variants([history(facts["history"])])) if one]
    if not shown:
        return absent("latency", "Latency", "No request was answered.")
    return Section("latency", "Latency", "charts.html", {"charts": shown})


def histogram(route: str, seconds: Sequence[float]) -> Chart | None:
    """Requests by the milliseconds that they took, in bins of equal ratio, with percentiles as lines."""
    values = 1000 * np.maximum(np.asarray(seconds, float), 1e-4)
    low, high = float(values.min()) / 1.1, float(values.max()) * 1.1
    edges = np.geomspace(low, high, BINS + 1)
    heights = np.histogram(values, edges)[0]
    ordered, top = np.sort(values), float(heights.max())
    lines = []
    for name, style in PERCENTILES:
        at = float(ordered[math.ceil(int(name[1:]) / 100 * len(ordered)) - 1])
        lines.append(Series(f"{name} {_ms(at)}", [(at, 0.0), (at, top)], style))
    bars = Series("requests", steps(edges.tolist(), heights.tolist()), "faint", fill=True, legend=False)
    return line_chart(
        "Time of a request", [bars, *lines], Axis("milliseconds", True), Axis("requests", include=(0.0,)),
        note=f"{route}: the newest {count(len(values))} that were answered without an error.",
    )  # fmt: skip


def history(intervals: Sequence[Json]) -> Chart | None:
    """Percentiles between two writings, about half a minute apart, over minutes."""
    times = [_minutes(intervals[0]["until"], one["until"]) for one in intervals]
    series = [
        Series(name, [(at, 1000 * one[name]) for at, one in zip(times, intervals, strict=True) if one.get(name)], style,
               dots=len(intervals) < 40)
        for name, style in PERCENTILES
    ]  # fmt: skip
    return line_chart("Time of a request, over time", series, Axis("minutes"), Axis("milliseconds", True))


def requests(facts: Json) -> Section:
    """How many requests of each route ended with which status."""
    rows = [
        {"route": route, "status": code, "n": count(n)}
        for route, codes in sorted(facts["requests"].items())
        for code, n in sorted(codes.items())
    ]
    if not rows:
        return absent("requests", "Requests", "There were none.")
    return Section("requests", "Requests", "requests.html", {"rows": rows})


def _ms(value: float) -> str:
    return f"{figure(value)} ms"


def _minutes(first: str, then: str) -> float:
    try:
        return (datetime.fromisoformat(then) - datetime.fromisoformat(first)).total_seconds() / 60
    except (ValueError, TypeError):  # not a time, or only one of them with a zone
        return math.nan
