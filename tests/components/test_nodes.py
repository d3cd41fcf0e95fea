"""A training step on several nodes: by a TrainJob of a Kubernetes API, whose nodes are processes here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components import trainer
from components.nodes import trained
from components.step import TRAIN_JOB
from core.errors import UserError
from core.modality import run
from core.requests import PrepareDataRequest, TrainRequest
from core.storage.integrity import files_sha256
from pipelines.jobs import load_job
from pipelines.kubeflow.manifest import nodes
from pipelines.machines import load_machines
from pipelines.settings import Settings
from tests.core.processes.test_launch import MODEL, ROOT, TRAIN, until
from tests.fakes.kubernetes import Kubernetes

NODES = ["resources.replicas=2", "resources.train=cpu"]
SETTINGS = Settings(
    kubeflow_environment={"OMP_NUM_THREADS": "1"}, kubeflow_secrets={"store": ("KEY",)}, kubeflow_service_account="step"
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "dataset"
    run(PrepareDataRequest(modality="images", data={"source": "digits"}, out=folder))
    return folder


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    template = nodes(load_job("digits", NODES), load_machines(), "registry.example/td:1", SETTINGS)
    monkeypatch.setenv(TRAIN_JOB, template)
    monkeypatch.setattr(trainer, "INTERVAL", 0.1)
    monkeypatch.setenv("KFP_POD_NAME", "step-pod")
    monkeypatch.setenv("KFP_POD_UID", "1-2-3")
    with Kubernetes(tmp_path, secrets={"store": {"KEY": "value"}}, backoff=0) as started:
        monkeypatch.setenv("KUBECONFIG", str(started.config))
        yield started


def request(dataset: Path, folder: Path, **train: Any) -> TrainRequest:
    return TrainRequest(modality="images", model=MODEL, train={**TRAIN, **train}, dataset=dataset,
                        out=folder / "model", work=str(folder / "work"))  # fmt: skip


def test_a_step_trains_on_the_nodes_of_a_train_job_and_survives_the_loss_of_one(
    cluster: Kubernetes, dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    asked = request(dataset, tmp_path)
    lost: list[str] = []
    looks = trainer._Watched._logs

    def look(watched: Any) -> None:  # as soon as there is a checkpoint a node is lost, once
        if not lost and list((tmp_path / "work").rglob("manifest-*")):
            lost.append(watched._name)
            cluster.lose(watched._name, 1)
        cluster.unavailable = 1
        looks(watched)

    monkeypatch.setattr(trainer._Watched, "_logs", look)
    facts = trained(asked)
    assert lost
    assert (facts["processes"], facts["examples_seen"], facts["effective_batch_size"]) == (2, 480, 30)
    assert json.loads((asked.out / "model.json").read_text())["weights_sha256"] == facts["weights_sha256"]
    body = cluster.created[0]
    assert body["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "step-pod", "uid": "1-2-3"}
    ]
    assert body["spec"]["trainer"]["numNodes"] == 2
    assert cluster.jobs == {}, "it is deleted in the end"
    left = [path.name for path in (tmp_path / "work" / ".nodes").rglob("*") if path.is_file()]
    assert not {"request.json", "ready.json", "complete.json"} & set(left)
    log = capfd.readouterr().out
    assert "nodes: Complete" in log
    assert "node 0: train: 480/480 examples" in log
    assert files_sha256(dataset)


def test_what_a_node_refuses_is_the_steps_own_line_and_nothing_is_tried_again(
    cluster: Kubernetes, dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"batch_size: 1 is less than one example for each of 2 processes"):
        trained(request(dataset, tmp_path, batch_size=1, micro_batch=1))
    assert cluster.jobs == {}
    assert len(cluster.created) == 1
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trainer": False}, "has no TrainJob; install Kubeflow Trainer"),
        ({"forbidden": {"create trainjobs"}}, "403: User .* cannot create trainjobs"),
        ({"forbidden": {"get pods/log"}}, "403: User .* cannot get pods/log"),
    ],
)
def test_what_the_cluster_refuses_is_one_line_and_leaves_nothing(
    cluster: Kubernetes, dataset: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    for name, value in change.items():
        setattr(cluster, name, value)
    with pytest.raises(UserError, match=said) as error:
        trained(request(dataset, tmp_path))
    assert "\n" not in str(error.value)
    assert cluster.jobs == {}


def test_a_job_that_keeps_failing_is_begun_anew_three_times_and_then_given_up(
    cluster: Kubernetes, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = json.loads(os.environ[TRAIN_JOB])
    template["spec"]["trainer"]["env"].append({"name": "PYTHONHOME", "value": "/nowhere"})  # no Python starts there
    monkeypatch.setenv(TRAIN_JOB, json.dumps(template))
    with pytest.raises(RuntimeError, match=r"failed 4 times: FailedJobs: jobset failed"):
        trained(request(dataset, tmp_path))
    assert len(cluster.created) == 4
    assert cluster.jobs == {}


PROGRAM = """
import sys
from pathlib import Path
from components import nodes, step, trainer
from core.requests import parse_request
trainer.INTERVAL = 0.1
with step.step():
    nodes.trained(parse_request(sys.argv[1]))
"""


def test_a_cancelled_step_deletes_its_job(cluster: Kubernetes, dataset: Path, tmp_path: Path) -> None:
    text = request(dataset, tmp_path, examples=480_000).model_dump_json()
    with subprocess.Popen([sys.executable, "-c", PROGRAM, text], cwd=ROOT, stderr=subprocess.PIPE, text=True) as step:
        until(lambda: cluster.created or step.poll() is not None, 120)
        step.send_signal(signal.SIGTERM)
        _, error = step.communicate(timeout=60)
    assert (step.returncode, error.strip()) == (143, "error: train: stopped by a signal; run again, it goes on")
    assert cluster.jobs == {}
    assert len(cluster.created) == 1
