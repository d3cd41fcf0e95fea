"""Manifests for Kubeflow's trainer, read with the official models of its API."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from components import train_job
from components.__main__ import main as inside
from core.errors import UserError
from core.processes.launch import Cluster
from core.text.model import load_model
from factory.job import parse_job
from pipelines.jobs import load_job
from pipelines.kubeflow.manifest import manifest
from pipelines.machines import load_machines
from tests.core.processes.test_launch import MODEL, TRAIN
from tests.core.text import test_steps as text
from tests.core.text.conftest import TEXT

SET = ["resources.replicas=3", "resources.train=l4"]


def made(kind: str, *overrides: str) -> dict[str, Any]:
    job = load_job("digits", overrides)
    return dict(yaml.safe_load(manifest(job, load_machines(), "registry.example/td:1", "gs://b/o", kind=kind)))  # type: ignore[arg-type]


def test_a_train_job_is_what_the_api_takes() -> None:
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

    body = made("TrainJob", *SET)
    assert TrainerV1alpha1TrainJob.from_dict(body).to_dict() == body, "the API does not know a field"
    trainer = body["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 1)
    assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "1"


@pytest.mark.filterwarnings("ignore")
def test_a_pytorch_job_is_what_the_api_takes() -> None:
    from kubeflow.training import models
    from kubeflow.training.api_client import ApiClient

    body = made("PyTorchJob", *SET)
    client = ApiClient()
    read = client.deserialize(SimpleNamespace(data=json.dumps(body)), models.KubeflowOrgV1PyTorchJob)
    assert client.sanitize_for_serialization(read) == body, "the API does not know a field"
    replicas = body["spec"]["pytorchReplicaSpecs"]
    assert {name: part["replicas"] for name, part in replicas.items()} == {"Master": 1, "Worker": 2}
    assert set(made("PyTorchJob")["spec"]["pytorchReplicaSpecs"]) == {"Master"}


def test_the_container_of_a_manifest_trains_the_job_and_publishes_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = load_job("digits").model_dump(mode="json")
    sample = {**job["sample"], "autoguidance": 1}
    small = parse_job({**job, "model": MODEL, "train": {**TRAIN, "examples": 60}, "sample": sample}, "small")
    container = yaml.safe_load(manifest(small, load_machines(), "i:1", "gs://b/o"))["spec"]["trainer"]
    arguments = [argument.replace("gs://b/o", str(tmp_path / "o")) for argument in container["args"]]
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert Cluster.of(environment).size == 1
    assert inside(arguments) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    published = json.loads((tmp_path / "o" / "complete.json").read_text())
    assert published["weights_sha256"] == facts["weights_sha256"]
    assert published["job"] == small.model_dump(mode="json")
    assert (tmp_path / "o" / "model" / "weights.safetensors").exists()
    monkeypatch.setenv("PET_NNODES", "2")
    monkeypatch.setenv("PET_MASTER_ADDR", "a")
    assert inside([*arguments[:-1], str(tmp_path / "elsewhere")]) == 2
    assert "several nodes need a remote prefix" in capsys.readouterr().err


def test_the_container_of_a_text_manifest_trains_both_models_the_second_from_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text(TEXT)
    job = load_job("shakespeare-training").model_dump(mode="json")
    source = {"source": "file", "data_dir": "gs://b/in.txt", "tokenizer": {"kind": "bpe", "vocabulary": 300}}
    sample = {**job["sample"], "gap": 4}
    changes = {"data": source, "model": text.MODEL, "train": text.TRAIN, "autoregressive": text.TRAIN, "sample": sample}
    small = parse_job({**job, **changes}, "small")
    container = yaml.safe_load(manifest(small, load_machines(), "i:1", "gs://b/o"))["spec"]["trainer"]
    here = {"gs://b/in.txt": str(tmp_path / "in.txt"), "gs://b/o": str(tmp_path / "o")}
    arguments = [*container["args"]]
    for remote, local in here.items():
        arguments = [argument.replace(remote, local) for argument in arguments]
    assert inside(arguments) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    published = json.loads((tmp_path / "o" / "complete.json").read_text())
    assert published["weights_sha256"] == facts["weights_sha256"]
    model, first = (load_model(tmp_path / "o" / name) for name in ("model", "autoregressive"))
    assert (model.objective, first.objective) == ("diffusion", "autoregressive")
    assert model.description["weights_sha256"] == facts["weights_sha256"]
    assert published["warm_start"] is True
    both = first.description["train_seconds"] + facts["train_seconds"]
    assert facts["total_seconds"] == pytest.approx(both, abs=0.2)
    assert inside(arguments) == 0  # a pod that is started again finds all of it done
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["weights_sha256"] == facts["weights_sha256"]


def test_a_node_fetches_what_the_one_with_the_first_process_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here, uri = tmp_path / "there", tmp_path / "here", str(tmp_path / "out" / "autoregressive")
    there.mkdir()
    (there / "weights").write_bytes(b"w")
    monkeypatch.setattr(train_job, "WAIT", 0.0)
    with pytest.raises(UserError, match="can all nodes write to"):
        train_job._shared(here, uri)
    train_job._shared(there, uri)
    train_job._shared(here, uri)
    assert (here / "weights").read_bytes() == b"w"


@pytest.mark.parametrize(
    ("name", "out", "overrides", "said"),
    [
        ("digits", "here", [], "--out here is on this machine"),
        ("digits", "gs://b/o", ["resources.train=tpu"], "resources.train: found 'tpu'"),
        ("mnist-training", "gs://b/o", ["data.data_dir=/data"], "data.data_dir: /data is on this machine"),
        ("mnist-sampling", "gs://b/o", [], "trains nothing"),
    ],
)
def test_what_pods_could_not_do_is_refused(name: str, out: str, overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        manifest(load_job(name, overrides), load_machines(), "i:1", out)
