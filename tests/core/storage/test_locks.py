"""One owner at a time, told apart from a later process of the same number, and never outlived by its lock."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import UserError
from core.storage import locks
from core.storage.locks import Holder, LockedError

HOLD = """
import sys, time
from pathlib import Path
from core.storage import locks
with locks.held(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    sys.stdin.read()
"""
ELSEWHERE = replace(Holder.here(), host="elsewhere", boot="another", pid=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def start(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def age(path: Path, seconds: float) -> None:
    facts = path.stat()
    os.utime(path, (facts.st_atime, facts.st_mtime - seconds))


def test_who_comes_second_is_told_who_holds_it_and_a_killed_owner_holds_nothing(path: Path) -> None:
    process = start(path)
    owner = locks.holder(path)
    assert owner is not None
    assert (owner.pid, owner.host) == (process.pid, os.uname().nodename)
    with (
        pytest.raises(LockedError, match=rf"^it: .+ on .+, process {process.pid} holds it") as error,
        locks.held(path, "it"),
    ):
        pass
    assert error.value.EXIT_CODE == 2
    process.kill()
    process.wait()
    assert locks.holder(path) is None
    with locks.held(path, "it"):
        assert locks.holder(path) == Holder.here()
    assert locks.holder(path) is None


def test_a_process_that_inherits_the_descriptor_holds_the_lock_too(path: Path) -> None:
    with locks.held(path, "it") as descriptor:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(descriptor,))
    with pytest.raises(LockedError), locks.held(path, "it"):
        pass
    child.communicate(b"\n")
    with locks.held(path, "it"):
        pass


def test_a_number_that_was_given_to_a_later_process_is_not_the_owner() -> None:
    me = Holder.here()
    assert me.alive()
    assert me.near
    assert not replace(me, started="1").alive()
    assert not replace(me, boot="before the machine was started again").near


def test_a_process_of_another_user_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    assert Holder.here().alive()


def test_a_process_that_ended_and_was_not_waited_for_is_dead(path: Path) -> None:
    process = start(path)
    owner = locks.holder(path)
    assert owner is not None
    assert owner.alive()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not owner.alive()
    process.wait()


@pytest.mark.parametrize("value", [None, [], {}, {"host": "h", "pid": 10**30}, {"host": "h", "pid": -1},
                                   {"host": 3, "pid": 3}, {"host": "h", "pid": True}])  # fmt: skip
def test_what_describes_no_process_is_none(value: object) -> None:
    assert Holder.parse(value) is None


def test_a_holders_name_cannot_move_the_cursor() -> None:
    assert "\x1b" not in str(Holder("\x1b[2Jhost", "", 1, "", "us\x1ber"))


def test_an_owner_on_another_machine_is_believed_while_it_renews_its_file(path: Path) -> None:
    path.write_text(json.dumps(ELSEWHERE.facts()))
    assert locks.holder(path) == ELSEWHERE
    with pytest.raises(LockedError, match="on elsewhere, process 1 holds it"), locks.held(path, "it"):
        pass
    age(path, locks.EXPIRY + 1)
    assert locks.holder(path) is None
    with locks.held(path, "it"):
        pass


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, kind: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)


def test_where_there_are_no_locks_the_process_decides(path: Path, without_locks: None) -> None:
    with locks.held(path, "it"):
        assert locks.holder(path) == Holder.here()
        with pytest.raises(LockedError), locks.held(path, "it"):
            pass
    assert locks.holder(path) is None
    path.write_text(json.dumps(replace(Holder.here(), started="1").facts()))  # killed; its number is another's now
    assert locks.holder(path) is None
    with locks.held(path, "it"):
        pass


def test_without_its_file_a_lock_is_held_by_whom_is_noted_if_that_process_is_there(path: Path) -> None:
    me = Holder.here()
    assert locks.holder(path, me) == me
    assert locks.holder(path, replace(me, started="1")) is None
    assert locks.holder(path, ELSEWHERE) is None


def test_a_place_that_cannot_be_a_lock_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be locked: Is a directory"), locks.held(tmp_path, "it"):
        pass
