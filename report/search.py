"""The hyper-parameter search before a training: its trials as a table, and the metric over each searched setting."""

from __future__ import annotations

from report.artifacts import Artifacts, Json, number
from report.charts import Axis, Chart, Series, line_chart
from report.sections import Section, absent, mapping
from report.words import compact, count, duration, figure

TITLE = "Hyper-parameter search"


def search(artifacts: Artifacts) -> Section:
    """Every trial with what it tried and what came of it; the winner is marked."""
    facts = artifacts.search.json("search.json")
    trials = [mapping(trial) for trial in facts.get("trials") or []]
    if not trials:
        return absent("search", TITLE, "No settings were searched before this training.")
    names = list(mapping(facts.get("parameters")))
    metric = str(facts.get("metric") or "metric")
    rows = [
        {
            "trial": trial.get("trial"),
            "settings": [_text(mapping(trial.get("parameters")).get(name)) for name in names],
            "value": figure(trial.get("value"), digits=4),
            "error": str(trial.get("error") or ""),
            "time": duration(trial["seconds"]) if number(trial.get("seconds")) is not None else "",
            "best": trial.get("trial") == facts.get("best"),
        }
        for trial in trials
    ]
    charts = [[("", chart)] for name in names if (chart := _chart(name, facts, trials, metric)) is not None]
    failed = sum(1 for trial in trials if number(trial.get("value")) is None)
    budget = mapping(facts.get("budget"))
    length = f"{count(budget['examples'])} examples" if "examples" in budget else f"{budget.get('minutes')} minutes"
    lead = (
        f"{len(trials)} trainings of {length} each; the model above was trained with the best settings at full length."
    )
    if failed:
        lead += f" {failed} came to no result."
    data = {"rows": rows, "names": names, "metric": metric, "better": facts.get("better"), "charts": charts}
    return Section("search", TITLE, "search.html", data, lead=lead)


def _chart(name: str, facts: Json, trials: list[Json], metric: str) -> Chart | None:
    """The metric over one setting; None for settings that are not numbers."""
    parameter = mapping(mapping(facts.get("parameters")).get(name))
    points: list[tuple[float, float]] = []
    best: list[tuple[float, float]] = []
    for trial in trials:
        x, y = number(mapping(trial.get("parameters")).get(name)), number(trial.get("value"))
        if x is not None and y is not None:
            (best if trial.get("trial") == facts.get("best") else points).append((x, y))
    if len(points) + len(best) < 2:
        return None
    return line_chart(
        f"{metric} over {name}",
        [
            Series("trials", sorted(points), "ink", dots=True, line=False),
            Series("best", best, "accent", dots=True, line=False),
        ],
        Axis(name, log=parameter.get("scale") == "log", room=0.04),
        Axis(metric),
    )


def _text(value: object) -> str:
    figure = number(value)
    return compact(figure) if figure is not None else str(value)
