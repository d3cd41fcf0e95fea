"""The endurance check counts what is lost and what is changed, and a real service loses and changes nothing."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks.endurance import Endured, endure, started
from benchmarks.serving import reference
from tests.serving.conftest import save_images


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"lost": 1, "answered": 99}, False),
        ({"changed": 1}, False),
        ({"answered": 99}, False),
        ({"kills_left": 1}, False),
    ],
)
def test_a_request_lost_or_changed_or_a_kill_left_out_fails(changes: dict[str, int], passed: bool) -> None:
    values = {"asked": 100, "answered": 100, "memory": [100] * 100, "workers": [100] * 100, **changes}
    assert Endured(**values).passed is passed  # type: ignore[arg-type]


@pytest.mark.parametrize("of", ["memory", "workers"])
def test_memory_that_grows_fails(of: str) -> None:
    values: dict[str, Any] = {"asked": 100, "answered": 100, "memory": [100] * 100, "workers": [100, 0] * 50}
    assert Endured(**{**values, of: [50] * 25 + [100] * 75}).passed  # it fills up at first
    assert not Endured(**{**values, of: list(range(100, 200))}).passed


def test_the_way_is_told_at_the_start_and_each_thousand(capsys: pytest.CaptureFixture[str]) -> None:
    done = Endured(3000)
    done.note(10_000_000, 0)
    for done.answered in range(1, 2001):
        done.note(20_000_000, 0)
    assert [(row["answered"], row["MB"]) for row in done.course] == [(0, 10), (1000, 20), (2000, 20)]
    assert "answered 1000" in capsys.readouterr().out


def test_no_request_is_lost_or_changed_under_kills_slow_clients_and_overload(tmp_path: Path) -> None:
    save_images(tmp_path / "model", 1)
    same = reference(tmp_path / "model", 2)[1]

    async def run() -> Endured:
        async with started(tmp_path / "model", 2, queue=4) as server:
            return await endure(server, requests=40, clients=12, kills=1, slow=2, same=same, out=tmp_path)

    with ThreadPoolExecutor(1) as thread:  # a browser's tests may have left a loop running in this one
        done = thread.submit(asyncio.run, run()).result()
    assert (done.answered, done.lost, done.changed, done.kills) == (40, 0, 0, 1)
    assert done.refused > 0
    assert [row["answered"] for row in done.course] == [0]  # and one for every thousand
    assert done.course[0]["MB"] > 1
    assert json.loads((tmp_path / "endurance.json").read_text())["answered"] == 40
    assert done.slow >= 2
