"""Which runs live, which one `latest` and `--resume` mean, and that each is executed by one process at a time."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from core import storage
from core.errors import UserError
from core.storage.locks import Holder, LockedError
from factory.run_folder import LOCK, Run, find_run, new_run, unfinished_run

STEPS = ["prepare-data", "train"]


def made(root: Path, *, begun: bool = True, **facts: object) -> Run:
    run = new_run(root, "images", "tiny", STEPS, {})
    if begun:
        run.begin("prepare-data")
    run.save(**facts)
    return run


def test_latest_is_the_newest_run_that_began_a_step(tmp_path: Path) -> None:
    first = made(tmp_path, begun=False, created="2026-01-01T00:00:00+00:00")
    second = made(tmp_path, begun=False, created="2026-01-02T00:00:00+00:00")
    assert not (tmp_path / "latest").is_symlink()
    first.begin("prepare-data")
    assert find_run(tmp_path, "latest").id == first.id
    second.begin("prepare-data")
    first.begin("train")
    assert find_run(tmp_path, "latest").id == second.id


def test_resume_prefers_the_newest_that_began_and_takes_the_one_that_is_named(tmp_path: Path) -> None:
    old = made(tmp_path, status="failed", created="2026-01-01T00:00:00+00:00")
    worked = made(tmp_path, status="failed", created="2026-01-02T00:00:00+00:00")
    made(tmp_path, status="failed", created="2026-01-03T00:00:00+00:00", begun=False)
    ended = made(tmp_path, status="succeeded")
    assert unfinished_run(tmp_path, "tiny").id == worked.id
    assert unfinished_run(tmp_path, "tiny", old.id).id == unfinished_run(tmp_path, None, old.id).id == old.id
    for job, name, said in [("other", old.id, "a run of job tiny"), ("tiny", ended.id, "has ended"),
                            ("tiny", "nothing", "there is none"), ("other", "", "no unfinished run")]:  # fmt: skip
        with pytest.raises(UserError, match=said):
            unfinished_run(tmp_path, job, name)


def test_a_run_that_only_just_starts_is_resumed_where_there_is_no_other(tmp_path: Path) -> None:
    only = made(tmp_path, begun=False, status="failed")
    assert unfinished_run(tmp_path, "tiny").id == only.id


def test_a_run_lives_as_long_as_its_lock_is_held(tmp_path: Path) -> None:
    run = made(tmp_path)
    with run.held():
        assert find_run(tmp_path, run.id).status == "running"
        with pytest.raises(UserError, match=rf"still running: .* process {os.getpid()} holds it"):
            unfinished_run(tmp_path, "tiny")
        with pytest.raises(LockedError, match=rf"run {run.id}: .* process {os.getpid()} holds it"), run.held():
            pass
    dead = find_run(tmp_path, run.id)
    assert (dead.status, dead.facts["interrupted"]) == ("failed", True)  # though a process of that number lives


@pytest.mark.parametrize(
    ("owner", "status"),
    [
        (Holder.here(), "running"),
        (replace(Holder.here(), started="1"), "failed"),  # its number is another process's now
        (replace(Holder.here(), boot="before"), "failed"),  # the machine was started again
    ],
)
def test_without_a_lock_host_process_and_its_start_decide(tmp_path: Path, owner: Holder, status: str) -> None:
    run = made(tmp_path, **owner.facts())
    assert not (run.folder / LOCK).exists()
    assert find_run(tmp_path, run.id).status == status


def test_another_users_process_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path)

    def refuse(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    assert find_run(tmp_path, run.id).status == "running"
    with pytest.raises(UserError, match="still running"):
        unfinished_run(tmp_path, "tiny")


def test_a_run_of_another_machine_is_not_taken_over_while_it_renews_its_lock(tmp_path: Path) -> None:
    elsewhere = replace(Holder.here(), host="elsewhere", boot="another", pid=1)
    run = made(tmp_path, **elsewhere.facts())
    storage.write_json(run.folder / LOCK, elsewhere.facts())
    with pytest.raises(UserError, match=r"still running: .* on elsewhere, process 1 holds it"):
        unfinished_run(tmp_path, "tiny")
    os.utime(run.folder / LOCK, (0, 0))
    assert unfinished_run(tmp_path, "tiny").id == run.id
