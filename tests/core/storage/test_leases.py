"""Of two trainings in one folder of checkpoints, in a bucket or on disk, one runs and the other is told."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from core import storage
from core.storage import generations, leases, locks
from core.storage.exchange import exchange
from core.storage.leases import Lease
from core.storage.locks import Holder, LockedError

ELSEWHERE = replace(Holder.here(), host="elsewhere", boot="another", pid=1)
DEAD = replace(Holder.here(), started="1")


@pytest.fixture
def uri(bucket: str) -> str:
    return f"{bucket}/training.lease"


def held_by(uri: str, owner: Holder) -> None:
    storage.write_bytes(uri, json.dumps(owner.facts()).encode())


def test_an_object_is_replaced_by_its_generation_only(uri: str) -> None:
    assert generations.look(uri) is None
    first = generations.replace(uri, b"one", generations.ABSENT)
    assert first is not None
    assert generations.replace(uri, b"two", generations.ABSENT) is None
    second = generations.replace(uri, b"two", first)
    assert second not in (None, first)
    assert generations.replace(uri, b"three", first) is None
    now = generations.look(uri)
    assert now is not None
    assert (now.data, now.generation) == (b"two", second)
    assert 0 <= now.age < 60


def test_no_change_of_an_object_is_lost(uri: str) -> None:
    def add(number: int) -> None:
        exchange(uri, lambda data: json.dumps([*json.loads(data or b"[]"), number]).encode())

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(12)))
    assert sorted(storage.read_json(uri)) == list(range(12))


def test_a_lease_has_one_holder_and_the_second_is_told_who(uri: str) -> None:
    first, second = Lease(uri, "it"), Lease(uri, "it")
    first.take()
    with first.renewed():
        with pytest.raises(LockedError, match=rf"it: .* process {Holder.here().pid} holds it"):
            second.take()
        first.require()
    second.take()  # it was let go


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(uri: str) -> None:
    held_by(uri, DEAD)
    Lease(uri, "it").take()


def test_the_lease_of_another_machine_is_taken_over_only_when_it_has_expired(uri: str) -> None:
    held_by(uri, ELSEWHERE)
    end = threading.Event()

    def renew() -> None:
        while not end.wait(0.2):
            held_by(uri, ELSEWHERE)

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        with pytest.raises(LockedError, match="on elsewhere"):
            Lease(uri, "it", renewal=0.2, expiry=30).take()
    finally:
        end.set()
        renewing.join()
    Lease(uri, "it", renewal=0.2, expiry=1.5).take()


def test_who_lost_the_lease_writes_nothing_more(uri: str) -> None:
    first = Lease(uri, "it", renewal=600, expiry=0)
    first.take()
    with first.renewed():
        held_by(uri, ELSEWHERE)
        with pytest.raises(LockedError, match="on elsewhere"):
            first.require()
    assert json.loads(storage.read_bytes(uri))["host"] == "elsewhere"  # nor lets another's lease go


def test_a_lease_is_renewed_while_it_is_held(uri: str) -> None:
    lease = Lease(uri, "it", renewal=0.05)
    lease.take()
    before = generations.look(uri)
    with lease.renewed():
        while generations.look(uri).generation == before.generation:  # type: ignore[union-attr]
            pass
        lease.require()


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_one_training_at_a_time_has_a_folder_of_checkpoints(place: str, uri: str, tmp_path: Path) -> None:
    root = str(tmp_path) if place == "disk" else uri.removesuffix("/training.lease")
    with leases.only_one(root, "it") as guard:
        guard()
        with pytest.raises(LockedError, match=r"it: .* holds it"), leases.only_one(root, "it", patience=0):
            pass
    with leases.only_one(root, "it", patience=0):
        pass


def test_a_training_waits_for_one_that_is_about_to_end(tmp_path: Path) -> None:
    began = threading.Event()

    def ending() -> None:
        with locks.held(tmp_path / leases.LOCK, "it"):
            began.set()
            threading.Event().wait(0.3)

    thread = threading.Thread(target=ending)
    thread.start()
    began.wait()
    with leases.only_one(str(tmp_path), "it"):
        pass
    thread.join()
