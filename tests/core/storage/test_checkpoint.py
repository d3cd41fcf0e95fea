import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from core import storage
from core.errors import UserError
from core.storage import snapshot
from core.storage.checkpoint import CheckpointRaceError, CheckpointStore, deserialize, serialize
from core.storage.faults import StorageError
from core.storage.integrity import digest
from core.training.log import write_records

ROOT = Path(__file__).parents[3]


def save(store: CheckpointStore, value: float) -> int:
    return store.save({"model": {"w": torch.full((3,), value)}}, {"log.jsonl": b"{}"}, {"value": value})


def test_round_trip_keeps_tensors_files_and_meta(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    assert store.load() is None
    save(store, 1.5)
    loaded = store.load()
    assert loaded is not None
    assert torch.equal(loaded.tensors["model"]["w"], torch.full((3,), 1.5))
    assert (loaded.files, loaded.meta) == ({"log.jsonl": b"{}"}, {"value": 1.5})


def test_only_the_newest_are_kept_and_no_data_is_orphaned(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path), keep=2)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0-dead-model.safetensors").write_bytes(b"left by a kill")
    for value in range(5):
        save(store, value)
    assert store.indices() == [3, 4]
    assert len(list((tmp_path / "data").iterdir())) == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:-4] + bytes([data[-4] ^ 1]) + data[-3:],
        lambda data: data + b"x",
    ],
    ids=["truncated", "half", "empty", "bit-flip", "longer"],
)
def test_damaged_data_is_named_and_the_previous_checkpoint_used(tmp_path: Path, damage, caplog) -> None:
    store = CheckpointStore(str(tmp_path))
    save(store, 1.0)
    save(store, 2.0)
    (victim,) = (tmp_path / "data").glob("1-*-model.safetensors")
    victim.write_bytes(damage(victim.read_bytes()))
    loaded = store.load()
    assert loaded is not None
    assert loaded.meta["value"] == 1.0
    assert victim.name in caplog.text


@pytest.mark.parametrize(
    "manifest", [b"", b"{", b"[]", b'{"meta": {}, "files": {"x": 3}}', b"\xff\xfe", b"[" * 100_000]
)
def test_a_damaged_manifest_is_passed_over(tmp_path: Path, manifest: bytes) -> None:
    store = CheckpointStore(str(tmp_path))
    save(store, 1.0)
    (tmp_path / "manifest-00000001.json").write_bytes(manifest)
    loaded = store.load()
    assert loaded is not None
    assert loaded.index == 0


@pytest.mark.parametrize("path", ["../secret", "data/../../secret", "/etc/passwd", "{tmp}/secret", "data//{tmp}/secret",
                                  "secret", "data/out"])  # fmt: skip
def test_a_manifest_cannot_reach_outside_its_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "work" / "data").mkdir(parents=True)
    (tmp_path / "work" / "data" / "out").symlink_to(tmp_path / "secret")
    entry = {"path": path.format(tmp=tmp_path), "sha256": hashlib.sha256(b"secret").hexdigest(), "bytes": 6}
    manifest = {"index": 0, "files": {"x": entry}, "meta": {}}
    storage.write_json(tmp_path / "work/manifest-00000000.json", {**manifest, "sha256": digest(manifest)})
    with pytest.raises(UserError, match="refuses the"):
        CheckpointStore(str(tmp_path / "work")).at(0)


@pytest.mark.parametrize(
    "key", ["/{tmp}/escaped.json", "../escaped.json", "a/b.json", "..", "", "a\\b.json", "a\0b.json"]
)
def test_the_keys_of_a_foreign_checkpoint_write_nothing_outside(tmp_path: Path, key: str) -> None:
    """Its manifest is made by one who knows how it is hashed, and its files are whole."""
    good = {"model.json": b'{"modality": "images"}'}
    CheckpointStore(str(tmp_path / "work")).save({"ema": {"w": torch.zeros(2)}}, good, {"examples_seen": 1})
    manifest = storage.read_json(tmp_path / "work" / "manifest-00000000.json")
    del manifest["sha256"]
    entry = manifest["files"]["model.json"]
    manifest |= {"index": 1, "files": {**manifest["files"], key.format(tmp=str(tmp_path).lstrip("/")): entry}}
    storage.write_json(tmp_path / "work/manifest-00000001.json", {**manifest, "sha256": digest(manifest)})
    with pytest.raises(UserError, match="refuses the name"):
        snapshot.write_model(f"{tmp_path}/work/manifest-00000001.json", tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


@pytest.mark.parametrize("key", ["preview-..", "preview-/{tmp}/escaped", "../escaped", "preview-a\0b", "preview-"])
def test_the_names_of_previews_write_nothing_outside(tmp_path: Path, key: str) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="refuses the name"):
        write_records([], {key.format(tmp=str(tmp_path).lstrip("/")): b"png"}, tmp_path / "model")
    assert storage.list_files(tmp_path) == ["model/train_log.jsonl"]


def test_of_two_writers_of_one_index_one_wins_and_the_other_is_told(tmp_path: Path, monkeypatch) -> None:
    first, second = CheckpointStore(str(tmp_path)), CheckpointStore(str(tmp_path))
    save(first, 1.0)
    stale = second.indices()
    save(first, 2.0)
    monkeypatch.setattr(second, "indices", lambda: stale)
    with pytest.raises(CheckpointRaceError, match="another process"):
        save(second, 3.0)
    loaded = first.load()
    assert loaded is not None
    assert loaded.meta["value"] == 2.0
    assert not list((tmp_path / "data").glob("*3.0*"))
    assert len(list((tmp_path / "data").iterdir())) == 4


def test_a_flipped_bit_in_a_counter_is_not_believed(tmp_path: Path, caplog) -> None:
    store = CheckpointStore(str(tmp_path))
    save(store, 1.0)
    save(store, 2.0)
    manifest = tmp_path / "manifest-00000001.json"
    manifest.write_text(manifest.read_text().replace('"value": 2.0', '"value": 3.0'))
    loaded = store.load()
    assert loaded is not None
    assert loaded.meta == {"value": 1.0}
    assert "checkpoint 1 is damaged" in caplog.text


def test_a_damaged_checkpoint_does_not_push_out_a_good_one(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path), keep=2)
    save(store, 1.0)
    save(store, 2.0)
    (tmp_path / "manifest-00000001.json").write_bytes(b"{")
    assert store.load() is not None
    save(store, 3.0)
    (tmp_path / "manifest-00000002.json").write_bytes(b"{")
    loaded = CheckpointStore(str(tmp_path)).load()
    assert loaded is not None
    assert loaded.meta == {"value": 1.0}


def test_what_a_killed_write_left_is_swept_up(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path), keep=1)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".0-dead-model.safetensors.abc.tmp").write_bytes(b"half")
    save(store, 1.0)
    save(store, 2.0)
    assert [name for name in storage.list_files(tmp_path / "data") if "dead" in name] == []


FULL = """
import resource, sys, torch
from core.storage.checkpoint import CheckpointStore
from core.errors import UserError
store = CheckpointStore(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # what a full disk does: a write fails half-way
try:
    store.save({"small": {"w": torch.zeros(1)}, "model": {"w": torch.zeros(100_000)}}, {}, {"value": 2.0})
except UserError as error:
    print(error)
"""


def test_a_full_disk_is_one_line_and_the_earlier_checkpoint_is_intact(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    save(store, 1.0)
    before = storage.list_files(tmp_path)
    called = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert "cannot be written: File too large" in called.stdout
    assert called.stderr == ""
    assert storage.list_files(tmp_path) == before
    loaded = store.load()
    assert loaded is not None
    assert loaded.meta == {"value": 1.0}


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be written: Not a directory"):
        save(CheckpointStore(str(tmp_path / "file" / "work")), 1.0)


READ_ONLY = """
import os, sys, torch
from core.storage.checkpoint import CheckpointStore
from core.errors import UserError
UserError("patterns-of-credentials: read while this process may")
from tests.fakes import unprivileged
unprivileged.become()  # root may write everywhere
try:
    CheckpointStore(sys.argv[1]).save({"model": {"w": torch.zeros(3)}}, {}, {})
except UserError as error:
    print(error)
"""


def test_a_read_only_folder_is_one_line() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to the user that root becomes
        root = Path(name)
        root.chmod(0o755)
        store = CheckpointStore(name)
        save(store, 1.0)
        (root / "data").chmod(0o555)
        before = storage.list_files(name)
        called = subprocess.run([sys.executable, "-c", READ_ONLY, name], capture_output=True, text=True, cwd=ROOT)
        assert "cannot be written: Permission denied" in called.stdout, called.stderr
        assert called.stderr == ""
        assert storage.list_files(name) == before
        (root / "data").chmod(0o755)


def test_channels_last_weights_survive(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    assert torch.equal(deserialize(serialize({"w": weight}), "x")["w"], weight)


def test_a_header_that_lies_about_its_size_is_refused_without_allocating() -> None:
    with pytest.raises(UserError, match="not a safetensors file"):
        deserialize((2**40).to_bytes(8, "little") + json.dumps({}).encode(), "weights")
