"""The endurance check counts what is lost and what is changed, and a real service loses and changes nothing."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.endurance import Endured, endure, started
from benchmarks.serving import reference
from tests.serving.conftest import save_images


@pytest.mark.parametrize(
    ("changes", "passed"),
    [({}, True), ({"lost": 1, "answered": 99}, False), ({"changed": 1}, False), ({"answered": 99}, False)],
)
def test_one_lost_or_changed_request_fails(changes: dict[str, int], passed: bool) -> None:
    values = {"asked": 100, "answered": 100, "memory": [100] * 100, **changes}
    assert Endured(**values).passed is passed  # type: ignore[arg-type]


def test_memory_that_grows_fails() -> None:
    assert Endured(100, 100, memory=[50] * 25 + [100] * 75).passed  # it fills up at first
    assert not Endured(100, 100, memory=list(range(100, 200))).passed


def test_no_request_is_lost_or_changed_under_kills_slow_clients_and_overload(tmp_path: Path) -> None:
    save_images(tmp_path / "model", 1)
    same = reference(tmp_path / "model", 2)[1]

    async def run() -> Endured:
        async with started(tmp_path / "model", 2, queue=4) as server:
            return await endure(server, requests=40, clients=12, kills=1, slow=2, same=same)

    with ThreadPoolExecutor(1) as thread:  # a browser's tests may have left a loop running in this one
        done = thread.submit(asyncio.run, run()).result()
    assert (done.answered, done.lost, done.changed, done.kills) == (40, 0, 0, 1)
    assert done.refused > 0
    assert done.slow >= 2
