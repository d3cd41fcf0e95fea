"""What is described is hashed, and the description too: no flipped bit is believed."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from core import storage
from core.errors import UserError
from core.images.judge import FEATURES, Judge, JudgeNetwork
from core.images.judge import WEIGHTS as JUDGE_WEIGHTS
from core.storage import integrity
from core.storage.checkpoint import CheckpointStore, deserialize, serialize
from core.storage.model_folder import read_description, read_weights, write_model
from core.storage.snapshot import write_model as write_snapshot
from factory.registry import Registry

DESCRIPTION = {
    "modality": "images",
    "model": {"process": {"sigma_data": 0.5}},
    "sizes": [16, 32],
    "weights_sha256": "a" * 64,
}


def test_no_flipped_bit_of_a_description_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    integrity.write_json(path, DESCRIPTION)
    assert integrity.read_json(path) == DESCRIPTION
    whole = path.read_bytes()
    for at in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            try:
                found = integrity.read_json(path)
            except UserError as error:
                assert "\n" not in str(error)
            else:
                assert found == DESCRIPTION, (at, bit)  # a blank that became another blank


def test_a_model_with_another_sigma_data_is_refused_in_one_line(tmp_path: Path) -> None:
    write_model(tmp_path, nn.Linear(2, 2), DESCRIPTION)
    path = tmp_path / "model.json"
    path.write_text(path.read_text().replace('"sigma_data": 0.5', '"sigma_data": 0.4'))
    with pytest.raises(UserError, match=r"model\.json: damaged: its content does not match its own SHA-256"):
        read_description(tmp_path, "images")


def test_a_model_of_an_earlier_version_loads_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = write_model(tmp_path, nn.Linear(2, 2), DESCRIPTION)
    storage.write_json(tmp_path / "model.json", written)
    with caplog.at_level(logging.WARNING):
        description = read_description(tmp_path, "images")
    assert set(read_weights(tmp_path, description)) == {"weight", "bias"}
    assert "states no hash of its own" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2])
def test_weights_that_are_not_finite_are_refused_by_name(value: float, dtype: torch.dtype) -> None:
    tensors = {"steps": torch.zeros(2, dtype=torch.int64), "layer.weight": torch.tensor([1.0, value]).to(dtype)}
    with pytest.raises(UserError, match=r"w\.safetensors: layer\.weight holds numbers that are NaN or infinite"):
        deserialize(serialize(tensors), "w.safetensors")


def test_a_checkpoint_that_is_not_finite_gives_way_to_the_one_before(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "work"))
    beside = {"model.json": json.dumps({"modality": "images"}).encode()}
    for number, value in enumerate([1.0, float("nan")]):
        store.save({"ema": {"w": torch.tensor([value])}}, beside, {"examples_seen": number})
    found = store.load()
    assert found is not None
    assert found.index == 0
    write_snapshot(str(tmp_path / "work"), tmp_path / "model")
    assert read_description(tmp_path / "model", "images")["examples_seen"] == 0
    with pytest.raises(UserError, match="NaN or infinite"):
        write_snapshot(str(tmp_path / "work" / "manifest-00000001.json"), tmp_path / "other")


def judge_folder(folder: Path) -> Path:
    network = JudgeNetwork(1, 8, 8, 2)
    storage.write_bytes(folder / JUDGE_WEIGHTS, serialize(network.state_dict()))
    facts = {"sha256": storage.sha256(folder / JUDGE_WEIGHTS), "image": [1, 8, 8], "class_names": ["a", "b"]}
    integrity.write_json(folder / "judge.json", {**facts, "features": FEATURES})
    return folder


def test_a_judge_whose_description_was_changed_is_refused(tmp_path: Path) -> None:
    path = judge_folder(tmp_path) / "judge.json"
    assert Judge.open(tmp_path).description["class_names"] == ["a", "b"]
    path.write_text(path.read_text().replace('"a"', '"c"'))
    with pytest.raises(UserError, match=r"judge\.json: damaged"):
        Judge.open(tmp_path)


@pytest.mark.parametrize("name", ["champion.json", "versions/00001/manifest.json"])
def test_a_registry_whose_records_were_changed_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "weights.safetensors").write_bytes(b"w")
    registry = Registry(tmp_path / "registry")
    parts = {"model": tmp_path / "made"}
    metrics = {"distance": {"value": 91.8}}
    registry.register("digits", parts, metrics=metrics, evaluation_key="", weights_sha256="w", lineage={})
    registry.promote("digits", 1, "it is 91.80")
    path = tmp_path / "registry" / "digits" / name
    path.write_text(path.read_text().replace("91.8", "11.8"))
    with pytest.raises(UserError, match="damaged"):
        registry.champion("digits")


def test_a_folders_hash_is_of_names_and_contents(tmp_path: Path) -> None:
    hashes = set()
    for number, files in enumerate(({"a": "x", "b/c": "y"}, {"a": "x", "b/c": "z"}, {"a": "x", "c": "y"}, {"a": "x"})):
        for name, text in files.items():
            storage.write_bytes(tmp_path / str(number) / name, text.encode())
        hashes.add(integrity.files_sha256(tmp_path / str(number)))
    assert len(hashes) == 4
    storage.copy_tree(tmp_path / "0", tmp_path / "copy")
    assert integrity.files_sha256(tmp_path / "copy") in hashes
