"""Threads of a run: as many as others leave processors free, kept for the run, and never against the user's word."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.processes import interpreter, limits
from local import threads
from local.environment import step_environment
from local.threads import choose


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of four processors, and the file that counts their ticks."""
    monkeypatch.setattr(limits, "CGROUP", tmp_path)
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(threads, "STAT", tmp_path / "stat")
    return tmp_path / "stat"


def busy(stat: Path, monkeypatch: pytest.MonkeyPatch, user: int, idle: int) -> None:
    """While the processors are watched, `user` ticks are worked and `idle` ticks are not."""

    def ticks(user: int, idle: int) -> str:
        """Of eight processors, of which those that are not ours do nothing."""
        rows = [(user, idle) if number < 4 else (0, user + idle) for number in range(8)]
        return "cpu  1 2 3\n" + "".join(f"cpu{n} {u} 0 0 {i} 0 0 0 0 0 0\n" for n, (u, i) in enumerate(rows))

    stat.write_text(ticks(100, 100))
    monkeypatch.setattr(threads.time, "sleep", lambda _: stat.write_text(ticks(100 + user, 100 + idle)))


@pytest.mark.parametrize(
    ("user", "idle", "count"), [(0, 100, None), (10, 90, None), (50, 50, 2), (75, 25, 1), (100, 0, 1)]
)
def test_threads_are_the_processors_that_nobody_uses(
    four: Path, monkeypatch: pytest.MonkeyPatch, user: int, idle: int, count: int | None
) -> None:
    busy(four, monkeypatch, user, idle)
    assert choose({}, {}).count == count


def test_a_container_computes_with_no_more_threads_than_it_may_have(
    four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (four.parent / "cpu.max").write_text("200000 100000\n")
    busy(four, monkeypatch, 50, 50)
    assert choose({}, {}) == threads.Threads(2, "threads: all of 2 processors")


def test_the_number_is_said_and_set_for_the_steps(four: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy(four, monkeypatch, 50, 50)
    chosen = choose({}, {})
    assert chosen.line == "threads: 2 of 4 processors, 2 busy with other work; OMP_NUM_THREADS=N sets another number"
    assert chosen.environment() == {"TEXTDIFFUSION_THREADS": "run", "OMP_NUM_THREADS": "2"}


@pytest.mark.usefixtures("four")
def test_what_the_user_asked_for_is_not_touched() -> None:
    chosen = choose({"OMP_NUM_THREADS": "3"}, {"threads": 1})
    assert (chosen.line, chosen.environment()) == ("", {})


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(("kept", "told"), [(1, "1 of 4 processors"), (None, "all of 4 processors")])
def test_a_run_that_goes_on_keeps_its_number(kept: int | None, told: str) -> None:
    chosen = choose({}, {"threads": kept})
    assert (chosen.count, chosen.line) == (kept, f"threads: {told}, as this run began")


def test_threads_spin_shortly_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)

    def step() -> dict[str, str]:
        return step_environment(Path("/code"), Path("/runs"), Path("/events"), Path("/scratch"), "abc")

    assert step()["GOMP_SPINCOUNT"] == interpreter.environment({})["GOMP_SPINCOUNT"] == interpreter.SPIN
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert step()["GOMP_SPINCOUNT"] == interpreter.environment({"GOMP_SPINCOUNT": "7"})["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    for environment in (step(), interpreter.environment({"OMP_WAIT_POLICY": "ACTIVE"})):
        assert (environment["OMP_WAIT_POLICY"], environment.get("GOMP_SPINCOUNT")) == ("ACTIVE", None)
