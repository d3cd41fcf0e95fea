"""What a process may use, in a container and outside."""

from pathlib import Path

import pytest

from core.processes import limits


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the system says what a container may use; it has eight processors."""
    monkeypatch.setattr(limits, "CGROUP", tmp_path)
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return tmp_path


def test_a_container_has_no_more_processors_than_its_limit(files: Path) -> None:
    for limit, count in (("max 100000", 8), ("150000 100000", 2), ("nonsense", 8)):
        (files / "cpu.max").write_text(f"{limit}\n")
        assert limits.processors() == count
    (files / "cpu").mkdir()
    (files / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    (files / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert limits.processors() == 1


def test_a_container_has_no_more_memory_than_its_limit(files: Path) -> None:
    machine = limits.memory_bytes()
    assert 2**28 < machine < 2**50
    for name, limit in (("memory.max", 2**27), ("memory/memory.limit_in_bytes", 2**26)):
        (files / name).parent.mkdir(exist_ok=True)
        (files / name).write_text("max\n")
        before = limits.memory_bytes()
        (files / name).write_text(f"{limit}\n")
        assert (limits.memory_bytes(), before > limit) == (limit, True)
