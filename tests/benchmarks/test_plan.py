"""The plan: arithmetic by hand, and the page that says the same as the code."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import pytest

from benchmarks import gpus, growth, plan
from benchmarks.workload import Work

PAGE = Path(__file__).parents[2] / "docs" / "planning.md"


def training(*, parameters: int = 25_000_000, flop: float = 3e9, batch: int = 256) -> gpus.Training:
    return gpus.Training("by hand", Work(parameters, flop, 1000, 1e8), 256_000, batch)


def test_the_page_has_the_tables_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of our own jobs and one panel of growth; to count the large networks too takes minutes."""
    monkeypatch.setattr(growth, "PANELS", growth.PANELS[:1])
    page = PAGE.read_text(encoding="utf-8")
    found = dict(re.findall(r"<!-- python -m benchmarks\.plan: (\w+) -->\n(.*?)\n\n", page, re.S))
    assert list(found) == list(plan.TABLES)
    field = list(islice(plan.trainings(), 3))
    for name, table in plan.TABLES.items():
        assert set(table(field).splitlines()) <= set(found[name].splitlines()), name


def test_a_step_of_one_gpu_by_hand() -> None:
    step = gpus.step(training(), "a100")
    assert step.compute == pytest.approx(256 * 3e9 / (0.3 * 312e12))  # 8.2 ms
    assert step.launch == pytest.approx(0.010)  # 1000 operators of 10 us: the GPU waits for Python
    assert step.update == pytest.approx(25e6 * 52 / 1555e9)
    assert step.exchange == 0
    assert step.seconds == pytest.approx(0.010 + 25e6 * 52 / 1555e9)
    assert step.limit == "launches"


def test_an_exchange_between_machines_by_hand() -> None:
    """15/8 of 100 MB of gradients at 70 % of 100 Gbit/s are 21.4 ms; three all-reduces wait 50 us each."""
    step = gpus.step(training(), "a100-x8", machines=2)
    assert step.exchange == pytest.approx(0.021429 + 0.00015, rel=1e-3)
    assert step.limit == "network"
    assert gpus.step(training(), "a100-x8").exchange == pytest.approx(1.75 * 100e6 / 210e9 + 0.00015)


def test_what_does_not_fit_is_computed_in_parts() -> None:
    one = training()
    assert gpus.fitting(one, "t4") == 140  # (16 - 1.5 - 0.5) GB over 100 MB
    assert gpus.step(one, "t4").launch == pytest.approx(2 * 0.010)


def test_more_gpus_than_examples_are_refused_as_training_does() -> None:
    with pytest.raises(ValueError, match="a batch of 8 on 16 GPUs"):
        gpus.step(training(batch=8), "a100-x8", machines=2)


def test_dollars_count_the_start_of_every_machine() -> None:
    one = training()
    hourly = 8 * (0.73948 + 2.9339)
    assert gpus.dollars(one, "a100-x8", 4) == pytest.approx(4 * hourly * (gpus.hours(one, "a100-x8", 4) + 0.1))
