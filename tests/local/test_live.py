"""While a run goes on: its report shows the previews so far, and its lines come by time."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from core.images.pictures import png
from core.progress import EVENTS_VARIABLE, TASK_VARIABLE
from core.training.live import Live
from factory.run_folder import Run, new_run
from local.live import live_report
from local.progress import Display, Event, describe
from tests.report.artifacts import digits

STEPS = ["prepare-data", "train"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run in whose step `train` this process is."""
    found = new_run(tmp_path, "images", "tiny", STEPS, {"config": {"modality": "images"}})
    monkeypatch.setenv(EVENTS_VARIABLE, str(found.folder / "events.jsonl"))
    monkeypatch.setenv(TASK_VARIABLE, "train")
    found.begin("train")
    (found.folder / "steps/train").mkdir()
    return found


def show() -> None:
    rows = [{"examples": 64, "loss": 0.5, "lr": 0.002, "grad_norm": 1.0, "seconds": 3.0}]
    Live().show(rows, {"preview-000000000064.png": png(digits()[0][0])})


def until(path: Path) -> str:
    end = time.monotonic() + 60
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    return path.read_text(encoding="utf-8")


def test_the_report_of_a_training_that_goes_on_shows_its_preview_and_loads_itself_anew(run: Run) -> None:
    with live_report(run):
        show()
        page = until(run.folder / "report.html")
    assert "Preview samples after 64 examples seen" in page
    assert '<meta http-equiv="refresh" content="15">' in page
    assert "Now train." in page
    run.save(status="succeeded")
    assert 'http-equiv="refresh"' not in run.build_report().read_text(encoding="utf-8")


def test_where_nobody_watches_nothing_is_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TASK_VARIABLE)
    show()
    assert list((run.folder / "steps/train").iterdir()) == []


def test_the_time_left_counts_down_between_two_events() -> None:
    event = Event(step="train", done=50, total=100, unit="examples", rate=1, eta_seconds=50)
    assert describe(event).endswith("50 s left")
    assert describe(event, passed=8.0).endswith("42 s left")
    assert describe(event, passed=80.0).endswith("0 s left")


def test_in_a_log_the_first_news_and_every_note_are_lines(run: Run) -> None:
    console, events = Console(file=io.StringIO(), width=200), run.folder / "events.jsonl"
    with Display(run, events, console) as display:
        display.begin("train")
        first = {"task": "train", "step": "train", "done": 0, "total": 640, "unit": "examples"}
        note = {"task": "train", "step": "train", "note": "train: slower"}
        events.write_text(f"{json.dumps(first)}\n{json.dumps(note)}\n")
        end = time.monotonic() + 60
        while "0/640" not in console.file.getvalue() and time.monotonic() < end:  # type: ignore[attr-defined]
            time.sleep(0.05)
    said = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert said == ["train: begins", "  train: slower", "  train 0/640 examples (0%)"]
