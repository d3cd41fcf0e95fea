import io
import json
import sys
from pathlib import Path

import pytest

from core import progress as module
from core.progress import EVENTS_VARIABLE, Progress, per_second


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_progress_is_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("train", 20, "examples") as progress:
        progress.update(10, loss=0.123456)
        progress.update(20)
    said = terminal.getvalue()
    assert said.count("\n") == 1
    assert said.endswith("\n")
    first, second = said.strip("\r\n").split("\r")
    assert first.startswith("train: 10/20 examples")
    assert "loss 0.1235" in first
    assert len(second) >= len(first)  # nothing of the longer line is left


def test_in_a_log_the_end_is_always_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("train", 20, "examples") as progress:
        progress.update(20)
    assert capsys.readouterr().err.startswith("train: 20/20 examples")


class Clock:
    """Time that passes as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(EVENTS_VARIABLE, str(tmp_path / "events.jsonl"))
    return tmp_path / "events.jsonl"


def told(events: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in events.read_text().splitlines()]


def work(progress: Progress, clock: Clock, done: int, seconds: int, rate: int) -> int:
    """`rate` units a second for so many seconds."""
    for _ in range(seconds):
        clock.now += 1
        done += rate
        progress.update(done)
    return done


def test_the_first_update_is_told_and_later_ones_by_time(clock: Clock, events: Path) -> None:
    with Progress("train", 1000, "examples") as progress:
        progress.update(0)
        for done in range(1, 11):
            clock.now += 0.125
            progress.update(done, loss=0.5)
    assert [event["done"] for event in told(events)] == [0, 4, 8]
    assert told(events)[-1]["loss"] == 0.5


def test_the_time_left_follows_the_rate_of_the_last_half_minute(clock: Clock, events: Path) -> None:
    with Progress("train", 10_000, "examples") as progress:
        done = work(progress, clock, 0, 60, 100)
        work(progress, clock, done, 40, 10)
    assert told(events)[-1]["eta_seconds"] == pytest.approx((10_000 - 6_400) / 10)


def test_a_rate_that_falls_well_below_its_start_is_said_once(clock: Clock, events: Path) -> None:
    with Progress("train", 100_000, "examples") as progress:
        done = work(progress, clock, 0, 40, 100)
        done = work(progress, clock, done, 60, 70)  # a little slower is nothing to tell
        done = work(progress, clock, done, 60, 20)
        assert [event["note"] for event in told(events) if "note" in event] == [
            "train: slower: 48 examples a second, 100 at its start; other work takes the processors"
        ]
        done = work(progress, clock, done, 60, 100)
        work(progress, clock, done, 60, 20)
    assert len([event for event in told(events) if "note" in event]) == 2


def test_a_moment_is_too_short_for_a_rate(clock: Clock, events: Path) -> None:
    with Progress("train", 1000, "examples") as progress:
        clock.now += 0.001
        progress.update(5)
    assert (told(events)[0]["rate"], told(events)[0]["eta_seconds"]) == (0.0, None)


@pytest.mark.parametrize(("rate", "told"), [(0.0, "0/s"), (0.26, "0.3/s"), (9.96, "10/s"), (1028.4, "1028/s")])
def test_a_slow_rate_is_told_with_a_decimal(rate: float, told: str) -> None:
    assert per_second(rate) == told
