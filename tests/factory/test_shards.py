"""Very many samples: each exactly once, whoever is killed and however many workers there are."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.__main__ import main
from core import storage
from core.errors import UserError
from factory.shards import Plan, close, draw_shards, read_manifest
from tests.core.asked import Steps
from tests.core.processes.test_launch import MODEL, TRAIN
from tests.fakes.gcs import GcsServer

steps = Steps("images")

PLAN = Plan(47, 5, ".txt", {"seed": 1})


def numbers(start: int, stop: int) -> bytes:
    return "".join(f"{i}\n" for i in range(start, stop)).encode()


@pytest.fixture(params=["folder", "gs"])
def out(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "out")
        return
    with GcsServer() as server:
        server.create_bucket("many")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield "gs://many/run"


def whole(out: str) -> list[str]:
    files = [shard["file"] for shard in read_manifest(out)["shards"]]
    return b"".join(storage.read_bytes(storage.join(out, "shards", name)) for name in files).decode().split()


def test_workers_one_of_them_killed_draw_every_sample_exactly_once(out: str) -> None:
    calls: Counter[int] = Counter()

    def killed(start: int, stop: int) -> bytes:
        if start >= 20:
            raise KeyboardInterrupt
        calls[start] += 1
        return numbers(start, stop)

    def counted(start: int, stop: int) -> bytes:
        calls[start] += 1
        return numbers(start, stop)

    with pytest.raises(KeyboardInterrupt):
        draw_shards(PLAN, out, killed, worker=0, workers=2)
    assert not storage.exists(storage.join(out, "manifest.json"))
    done = draw_shards(PLAN, out, counted, worker=1, workers=2)  # its own, and what the lost one owed
    assert whole(out) == [str(i) for i in range(47)]
    assert set(calls.values()) == {1}
    assert done["drawn"] < PLAN.shards == 10
    assert draw_shards(PLAN, out, counted)["drawn"] == 0


def test_workers_that_do_not_help_draw_their_own_and_the_last_look_names_what_is_missing(out: str) -> None:
    with pytest.raises(UserError, match=r"plan\.json"):
        close(out)
    assert draw_shards(PLAN, out, numbers, worker=0, workers=3, helps=False)["drawn"] == 4
    assert draw_shards(PLAN, out, numbers, worker=2, workers=3, helps=False)["drawn"] == 3
    assert not storage.exists(storage.join(out, "manifest.json"))
    with pytest.raises(UserError, match=r"3 of 10 shards are missing \(1, 4, 7\); draw them again"):
        close(out)
    assert draw_shards(PLAN, out, numbers, worker=1, workers=3, helps=False)["drawn"] == 3
    assert close(out) == read_manifest(out)
    assert whole(out) == [str(i) for i in range(47)]


def test_two_workers_at_the_same_shard_have_one_author(out: str) -> None:
    """Both have drawn shard 0, each with other bytes (another GPU rounds otherwise), before either publishes it."""
    both, results = threading.Barrier(2), []

    def draw(name: str) -> Callable[[int, int], bytes]:
        def one(start: int, stop: int) -> bytes:
            both.wait(20)
            return numbers(start, stop) + name.encode()

        return one

    def work(name: str) -> None:
        results.append(draw_shards(Plan(5, 5, ".txt", {}), out, draw(name)))

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted((result["drawn"], result["lost"]) for result in results) == [(0, 1), (1, 0)]
    kept = [name for name in storage.list_files(storage.join(out, "shards")) if name.endswith(".txt")]
    assert kept == [read_manifest(out)["shards"][0]["file"]]


def test_another_plan_and_a_damaged_shard_are_refused(tmp_path: Path) -> None:
    out = str(tmp_path)
    draw_shards(PLAN, out, numbers)
    with pytest.raises(UserError, match=r"plan.json: holds another plan \(facts differ\)"):
        draw_shards(Plan(47, 5, ".txt", {"seed": 2}), out, numbers)
    with pytest.raises(UserError, match="worker: found 3 of 2"):
        draw_shards(PLAN, out, numbers, worker=3, workers=2)
    next((tmp_path / "shards").glob("000003-*")).write_bytes(b"x")
    with pytest.raises(UserError, match=r"000003-.*damaged"):
        read_manifest(out)


def test_what_was_lost_or_damaged_is_drawn_again_and_nothing_else(out: str) -> None:
    draw_shards(PLAN, out, numbers)
    before = {name: storage.read_bytes(f"{out}/{name}") for name in storage.list_files(out)}
    files = [shard["file"] for shard in read_manifest(out)["shards"]]
    flipped = bytes([before[f"shards/{files[0]}"][0] ^ 1]) + before[f"shards/{files[0]}"][1:]
    storage.write_bytes(f"{out}/shards/{files[0]}", flipped)
    storage.write_bytes(f"{out}/shards/{files[1]}", before[f"shards/{files[1]}"][:-3])
    storage.remove(f"{out}/shards/{files[2]}")
    storage.remove(f"{out}/shards/000003.json")
    storage.write_bytes(f"{out}/shards/000004.json", b'{"file": "../../plan.json", "sha256": 3')
    storage.write_json(f"{out}/shards/000005.json", {"file": "../manifest.json", "sha256": "0" * 64, "bytes": 1})
    storage.write_bytes(f"{out}/manifest.json", b"[]")
    with pytest.raises(UserError, match="not the manifest of a set of shards"):
        read_manifest(out)
    calls: list[int] = []

    def counted(start: int, stop: int) -> bytes:
        calls.append(start // PLAN.size)
        return numbers(start, stop)

    assert draw_shards(PLAN, out, counted)["drawn"] == 6
    assert sorted(calls) == [0, 1, 2, 3, 4, 5]
    assert {name: storage.read_bytes(f"{out}/{name}") for name in storage.list_files(out)} == before
    assert draw_shards(PLAN, out, counted)["drawn"] == 0


def test_a_damaged_shard_that_other_hardware_draws_is_replaced_with_its_manifest(out: str) -> None:
    draw_shards(PLAN, out, numbers)
    [victim] = [shard["file"] for shard in read_manifest(out)["shards"] if shard["shard"] == 3]
    storage.write_bytes(f"{out}/shards/{victim}", b"x")
    draw_shards(PLAN, out, lambda start, stop: numbers(start, stop) + b"rounded")
    entries = read_manifest(out)["shards"]
    assert entries[3]["file"] != victim
    assert victim not in storage.list_files(f"{out}/shards")
    assert len(storage.list_files(f"{out}/shards")) == 2 * PLAN.shards


def test_a_worker_reads_its_own_shards_and_counts_the_bytes_of_the_others(tmp_path: Path) -> None:
    draw_shards(PLAN, str(tmp_path), numbers)
    for shard in (2, 3):
        victim = next((tmp_path / "shards").glob(f"{shard:06d}-*"))
        victim.write_bytes(bytes(len(victim.read_bytes())))
    next((tmp_path / "shards").glob("000005-*")).unlink()
    assert draw_shards(PLAN, str(tmp_path), numbers, worker=0, workers=2)["drawn"] == 2  # shards 2 and 5
    assert draw_shards(PLAN, str(tmp_path), numbers, worker=1, workers=2)["drawn"] == 1
    assert whole(str(tmp_path)) == [str(i) for i in range(47)]


def test_a_manifest_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    draw_shards(PLAN, str(tmp_path / "out"), numbers)
    manifest = storage.read_json(tmp_path / "out" / "manifest.json")
    for name in ("../../secret", "/etc/passwd", "a\0b", None, "deeper/x"):
        manifest["shards"][0]["file"] = name
        storage.write_json(tmp_path / "out" / "manifest.json", manifest)
        with pytest.raises(UserError, match="refuses the name"):
            read_manifest(str(tmp_path / "out"))


def test_sharded_images_are_those_that_one_step_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, model = tmp_path / "dataset", tmp_path / "model"
    steps.prepare_data({"source": "digits"}, dataset)
    steps.train(MODEL, {**TRAIN, "examples": 60}, dataset, model, work=str(tmp_path / "work"))
    sample: dict[str, Any] = {"steps": 2, "seed": 3, "labels": [4, 7, 1]}
    steps.sample({**sample, "count": 23}, model, tmp_path / "together")
    out = tmp_path / "out"
    request = {"model": str(model), "out": str(out), "count": 23, "size": 8, "sample": sample, "workers": 2}
    for worker in (1, 0):
        assert main(["shards", "--request", json.dumps({**request, "worker": worker})]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["drawn"] == 3  # none was there, so it drew them all
    whole = [
        np.load(io.BytesIO((out / "shards" / shard["file"]).read_bytes()))
        for shard in read_manifest(str(out))["shards"]
    ]
    together = np.load(tmp_path / "together" / "samples.npz")
    for name in ("images", "labels"):
        assert np.array_equal(np.concatenate([part[name] for part in whole]), together[name])
    assert main(["shards", "--request", json.dumps({**request, "count": 0})]) == 2
    assert "count" in capsys.readouterr().err


def test_a_shard_is_named_by_its_content(tmp_path: Path) -> None:
    draw_shards(Plan(3, 5, ".txt", {}), str(tmp_path), numbers)
    [entry] = read_manifest(str(tmp_path))["shards"]
    assert entry["sha256"] == hashlib.sha256(numbers(0, 3)).hexdigest()
    assert entry["file"] == f"000000-{entry['sha256'][:16]}.txt"
