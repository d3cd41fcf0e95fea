"""A training step on several nodes: by a TrainJob of a Kubernetes API, whose nodes are processes here."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components import node_pods, train_jobs, trainer
from components.nodes import trained
from components.step import TRAIN_JOB
from core.errors import UserError
from core.modality import run
from core.processes.accelerators import EXPECTED
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
    monkeypatch.setattr(train_jobs, "INTERVAL", 0.1)
    monkeypatch.setenv("KFP_POD_NAME", "step-pod")
    monkeypatch.setenv("KFP_POD_UID", "1-2-3")
    with Kubernetes(tmp_path, secrets={"store": {"KEY": "value"}}, backoff=0) as started:
        monkeypatch.setenv("KUBECONFIG", str(started.config))
        yield started


def request(dataset: Path, folder: Path, **train: Any) -> TrainRequest:
    return TrainRequest(modality="images", model=MODEL, train={**TRAIN, **train}, dataset=dataset,
                        out=folder / "model", work=str(folder / "work"))  # fmt: skip


PROGRAM = """
import sys
from pathlib import Path
from components import nodes, step, train_jobs
from core.processes.accelerators import EXPECTED
from core.requests import parse_request
train_jobs.INTERVAL = 0.1
with step.step():
    nodes.trained(parse_request(sys.argv[1]))
"""


@contextlib.contextmanager
def step(asked: TrainRequest) -> Iterator[subprocess.Popen[str]]:
    """The pod of a step, as a process."""
    command = [sys.executable, "-c", PROGRAM, asked.model_dump_json()]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        yield process


def test_a_step_trains_on_the_nodes_of_a_train_job_and_survives_the_loss_of_one(
    cluster: Kubernetes, dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    asked = request(dataset, tmp_path)
    lost: list[int] = []
    looks = node_pods.NodePods.look

    def look(pods: Any, **which: Any) -> None:  # with the first checkpoint one node is lost, with a later one another
        if len(lost) < 2 and len(list((tmp_path / "work").rglob("manifest-*"))) > len(lost):
            lost.append(len(lost))
            cluster.lose(pods._api.name, lost[-1])
        cluster.unavailable = 1
        looks(pods, **which)

    monkeypatch.setattr(node_pods.NodePods, "look", look)
    facts = trained(asked)
    assert lost == [0, 1]
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
        ({"served": []}, r"has no TrainJob of trainer.kubeflow.org/v1alpha1; install Kubeflow Trainer"),
        ({"unknown": ("runtimePatches",)}, r'400: .*unknown field "spec.runtimePatches"; install Kubeflow Trainer 2.3'),
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
    cluster: Kubernetes, dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.program, cluster.backoff = ("-c", "print('error: the key of the bucket has expired'); exit(1)"), 1
    said = r"failed 4 times: FailedJobs: jobset failed.*; a node said: the key of the bucket has expired$"
    with pytest.raises(UserError, match=said) as error:
        trained(request(dataset, tmp_path))
    assert error.value.EXIT_CODE == 1
    limits = [body["spec"]["activeDeadlineSeconds"] for body in cluster.created]
    assert len(limits) == 4
    assert limits == sorted(limits, reverse=True), "a job that is begun anew has the time that is left"
    assert cluster.jobs == {}
    log = capfd.readouterr().out
    assert "nodes: node 1 is started again: Error, exit code 1" in log
    assert log.count("node 0: error: the key of the bucket has expired") == 8, "of each start, also those before"


def test_a_node_without_its_gpu_is_refused_once(cluster: Kubernetes, dataset: Path, tmp_path: Path) -> None:
    cluster.environment = {EXPECTED: "1"}
    template = json.loads(os.environ[TRAIN_JOB])
    template["spec"]["trainer"]["env"] = [one for one in template["spec"]["trainer"]["env"] if one["name"] != EXPECTED]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(TRAIN_JOB, json.dumps(template))
        with pytest.raises(UserError, match="GPU") as error:
            trained(request(dataset, tmp_path))
    assert error.value.EXIT_CODE == 2
    assert len(cluster.created) == 1


def test_nodes_that_end_without_a_result_are_a_failure_and_said(
    cluster: Kubernetes, dataset: Path, tmp_path: Path
) -> None:
    cluster.program = ("-c", "pass")
    with pytest.raises(UserError, match=r"failed 4 times: its nodes ended without a result$") as error:
        trained(request(dataset, tmp_path))
    assert error.value.EXIT_CODE == 1
    assert (len(cluster.created), cluster.jobs) == (4, {})
    assert not (tmp_path / "model").exists()


def test_the_job_of_an_earlier_try_is_found_again_and_one_that_was_made_otherwise_is_replaced(
    cluster: Kubernetes, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    cluster.program = ("-c", "import time; time.sleep(600)")
    asked = request(dataset, tmp_path)
    with step(asked) as killed:
        until(lambda: cluster.created or killed.poll() is not None, 120)
        killed.kill()
    cluster.program = ("-c", "exit(1)")
    monkeypatch.setattr(trainer, "RESTARTS", 0)
    with monkeypatch.context() as patched:
        patched.setattr(
            node_pods.NodePods, "look", lambda *_, **__: [pod.kill() for pod in cluster.pods[next(iter(cluster.jobs))]]
        )
        with pytest.raises(UserError, match="failed 1 times"):
            trained(asked)
    assert len(cluster.created) == 1, "it was that of the try before"
    with step(asked) as killed:
        until(lambda: len(cluster.created) == 2 or killed.poll() is not None, 120)
        killed.kill()
    monkeypatch.setenv(TRAIN_JOB, os.environ[TRAIN_JOB].replace("registry.example/td:1", "registry.example/td:2"))
    with pytest.raises(UserError, match="failed 1 times"):
        trained(asked)
    assert [body["spec"]["trainer"]["image"][-1] for body in cluster.created] == ["1", "1", "2"]
    assert "of an earlier try was made otherwise; begun anew" in capfd.readouterr().out


def test_a_job_of_that_name_that_is_somebody_elses_is_left_alone(
    cluster: Kubernetes, dataset: Path, tmp_path: Path
) -> None:
    cluster.program = ("-c", "import time; time.sleep(600)")
    with step(request(dataset, tmp_path)) as killed:
        until(lambda: cluster.created or killed.poll() is not None, 120)
        killed.kill()
    (job,) = cluster.jobs.values()
    del job["metadata"]["labels"]
    with pytest.raises(UserError, match=r"TrainJob team/train-\w+ is there and was not made by a training"):
        trained(request(dataset, tmp_path))
    assert list(cluster.jobs.values()) == [job]


def test_pods_that_are_not_made_or_do_not_begin_are_said_and_a_lasting_reason_ends_the_step(
    cluster: Kubernetes, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(node_pods, "UNMADE", 0.3)
    monkeypatch.setattr(node_pods, "STUCK", 0.3)
    cluster.quota = "requests.nvidia.com/gpu=16"
    cluster.stuck = {0: ("Unschedulable", "0/3 nodes are available: 3 Insufficient cpu."),
                     1: ("ImagePullBackOff", 'Back-off pulling image\n"registry.example/td:1"')}  # fmt: skip
    tells = node_pods.NodePods._tell

    def tell(pods: Any, pod: str, text: str) -> None:
        tells(pods, pod, text)
        cluster.quota = ""  # somebody gave way

    monkeypatch.setattr(node_pods.NodePods, "_tell", tell)
    with pytest.raises(UserError, match=r"node 1 does not begin: ImagePullBackOff: Back-off pulling image \S+$"):
        trained(request(dataset, tmp_path))
    assert (len(cluster.created), cluster.jobs) == (1, {})
    log = capfd.readouterr().out
    assert "nodes: 0 of 2 nodes have a pod: FailedCreate: pods" in log
    assert "exceeded quota: requests.nvidia.com/gpu=16" in log
    assert log.count("nodes: node 0 waits: Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.") == 1


def test_a_lost_answer_makes_no_second_job_and_a_passing_refusal_ends_none(
    cluster: Kubernetes, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(trainer, "RESTARTS", 0)
    cluster.program, cluster.lost = ("-c", "import time; print('hello', flush=True); time.sleep(1)"), 1
    looks, refused = node_pods.NodePods.look, []

    def look(pods: Any, **which: Any) -> None:
        looks(pods, **which)
        if not refused:
            refused.append(cluster.refusals.extend((401, 403, 503)))

    monkeypatch.setattr(node_pods.NodePods, "look", look)
    with pytest.raises(UserError, match="failed 1 times: its nodes ended without a result"):
        trained(request(dataset, tmp_path))
    assert (len(cluster.created), cluster.jobs, cluster.refusals) == (1, {}, [])
    assert "the Kubernetes API answers 503: a moment ago it was allowed; asked again" in capfd.readouterr().out


def test_a_log_that_cannot_be_read_ends_no_training(
    cluster: Kubernetes, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(trainer, "RESTARTS", 0)
    cluster.program = ("-c", "import time; print('hello', flush=True); time.sleep(1)")
    cluster.unreachable = {1}
    with pytest.raises(UserError, match="failed 1 times: its nodes ended without a result"):
        trained(request(dataset, tmp_path))
    log = capfd.readouterr().out
    assert "node 0: hello" in log
    assert "node 1: hello" not in log
    assert log.count("-node-0-1-") == 1, "said once"


def test_a_result_is_kept_though_its_job_may_not_be_deleted(
    cluster: Kubernetes, dataset: Path, tmp_path: Path, capfd: Any
) -> None:
    cluster.forbidden = {"delete trainjobs"}
    asked = request(dataset, tmp_path)
    publish = (
        "import json, pathlib, sys; (order,) = pathlib.Path(sys.argv[1]).iterdir(); (order / 'model').mkdir();"
        "(order / 'model' / 'x').write_text('1'); (order / 'complete.json').write_text('{\"examples_seen\": 7}')"
    )
    cluster.program = ("-c", publish, str(tmp_path / "work" / ".nodes"))
    assert trained(asked) == {"examples_seen": 7}
    assert (asked.out / "x").read_text() == "1"
    assert "warning: TrainJob team/train-" in capfd.readouterr().out
    cluster.remove_pod("1-2-3")
    until(lambda: not cluster.jobs, 10)


def test_the_account_of_a_step_is_read_from_its_token(tmp_path: Path) -> None:
    payload = base64.urlsafe_b64encode(b'{"sub": "system:serviceaccount:team:default-editor"}').decode().rstrip("=")
    (tmp_path / "token").write_text(f"head.{payload}.signature")
    assert train_jobs.account(tmp_path) == "default-editor"
    (tmp_path / "token").write_text("no token")
    assert train_jobs.account(tmp_path) == train_jobs.account(tmp_path / "nowhere") == ""


def test_a_cancelled_step_deletes_its_job(cluster: Kubernetes, dataset: Path, tmp_path: Path) -> None:
    with step(request(dataset, tmp_path, examples=480_000)) as asked:
        until(lambda: cluster.created or asked.poll() is not None, 120)
        asked.send_signal(signal.SIGTERM)
        _, error = asked.communicate(timeout=60)
    assert (asked.returncode, error.strip()) == (143, "error: train: stopped by a signal; run again, it goes on")
    assert cluster.jobs == {}
    assert len(cluster.created) == 1
