"""The page of what a service has served: all numbers with their count, floor and threshold; odd facts are escaped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from report import service
from report.artifacts import read

FACTS: dict[str, Any] = json.loads((Path(__file__).parent / "served.json").read_text())


def page(seconds: dict[str, list[float]] | None = None, **changes: Any) -> str:
    return service.render({**FACTS, **changes}, seconds or {}, read())


def test_drift_is_told_with_floor_threshold_and_count() -> None:
    text = page()
    row = text[text.index("Fréchet") : text.index("</tr>", text.index("frechet_distance</code>"))]
    for label, value in (
        ("Served", "4.10"),
        ("Measured", "1.90"),
        ("Floor", "1.42"),
        ("Threshold", "0.800"),
        ("n", "200"),
    ):
        assert f'data-label="{label}">{value}<' in row
    assert "drifted" in row
    assert "In doubt: few samples" in text


def test_percentiles_are_those_of_the_requests_and_of_each_interval() -> None:
    chart = service.histogram("/generate", [i / 1000 for i in range(1, 101)])
    assert chart is not None
    assert [one.name for one in chart.curves if one.legend] == ["p50 50 ms", "p95 95 ms", "p99 99 ms"]
    over_time = service.history(FACTS["history"])
    assert over_time is not None
    assert [one.name for one in over_time.curves] == ["p50", "p95", "p99"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compared": [], "not_compared": "12 images to compare"}, "12 images to compare"),
        ({"requests": {}, "history": [], "latencies": []}, "No request was answered."),
        ({"modality": "text"}, "No samples are kept."),
        (
            {"history": [{"until": "soon", "n": 1, "refused": 0, "p50": 1.0}, {"until": "", "n": 0, "refused": 1}]},
            "digits",
        ),
    ],
)
def test_what_is_missing_is_a_quiet_sentence(changes: dict[str, Any], said: str) -> None:
    assert said in page(**changes)


def test_names_that_are_markup_are_text() -> None:
    text = page({"<script>alert(1)</script>": [0.1]}, model="<b>x</b>", run="</script>")
    assert "<b>x</b>" not in text
    assert text.count("<script>") == 1
