"""The report of a search: every trial in a table, the metric over each setting, the winner marked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import report
from core import storage
from factory.search import choose

TRIALS: list[dict[str, Any]] = [
    {"trial": number, "parameters": {"train.learning_rate": rate, "train.optimizer": "muon"}, "value": value,
     "error": error, "seconds": 61.0}
    for number, rate, value, error in (
        (1, 0.001, 0.4, None), (2, 0.01, 0.25, None), (3, 0.1, None, "train: diverged"), (4, 0.003, 0.3, None),
    )
]  # fmt: skip
SEARCH = {
    "parameters": {
        "train.learning_rate": {"min": 1e-3, "max": 0.1, "scale": "log"},
        "train.optimizer": {"values": ["adamw", "muon"]},
    },
    "trials": 4,
    "examples": 1000,
}


def page(folder: Path, *, searched: bool = True) -> str:
    found = choose(SEARCH, {"examples": 5000}, TRIALS)
    storage.write_json(folder / "search" / "search.json", found)
    out = report.build(folder / "report.html", search=folder / "search" if searched else None, run={"job": "digits"})
    return out.read_text(encoding="utf-8")


def test_every_trial_is_a_row_and_the_best_is_marked(tmp_path: Path) -> None:
    body = page(tmp_path).partition('<section id="search"')[2].partition("</section>")[0]
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr>.*?</tr>", body, re.S)[1:]]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert [row[1] for row in rows].count("best") == 1
    assert rows[1][1] == "best"
    assert "train: diverged" in " ".join(rows[2])
    assert "4 trainings of 1,000 examples each" in body
    assert "1 came to no result" in body


def test_the_metric_is_drawn_over_settings_that_are_numbers(tmp_path: Path) -> None:
    body = page(tmp_path).partition('<section id="search"')[2].partition("</section>")[0]
    assert "validation_loss over train.learning_rate" in body
    assert "over train.optimizer" not in body
    dots = re.findall(r'class="dots (\w+)" d="([^"]+)"', body)
    assert {style: path.count("M") for style, path in dots} == {"ink": 2, "accent": 1}
    assert 'class="curve' not in body  # trials are points: nothing lies between them


def test_the_heading_names_the_winner(tmp_path: Path) -> None:
    assert "best of 4 trials: train.learning_rate 0.01, train.optimizer muon" in page(tmp_path)


def test_a_run_without_a_search_has_no_such_section(tmp_path: Path) -> None:
    assert '<section id="search"' not in page(tmp_path, searched=False)
