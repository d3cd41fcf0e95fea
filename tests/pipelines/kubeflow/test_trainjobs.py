"""What doctor and deploy say of a cluster that is to train on several nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.train_jobs import RIGHTS
from pipelines.jobs import load_job
from pipelines.kubeflow import trainjobs
from pipelines.kubeflow.submit import nodes_findings
from pipelines.settings import Settings
from tests.fakes.kubernetes import Kubernetes

DOCS = Path(__file__).parents[3] / "docs"
SETTINGS = Settings(
    kubeflow_namespace="team",
    kubeflow_secrets={"store": ("KEY",)},
    machines={"mine": {"machine_type": "e2-standard-4", "cpu": 4, "memory_gb": 16,
                       "kubernetes": {"pull_secrets": ["login"]}}},
)  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    with Kubernetes(tmp_path, secrets={"store": {"KEY": "value"}, "login": {}}) as started:
        monkeypatch.setenv("KUBECONFIG", str(started.config))
        yield started


def test_all_that_is_needed_is_asked_of_kubernetes(cluster: Kubernetes) -> None:
    rows = list(trainjobs.checks(SETTINGS))
    assert [row["check"] for row in rows] == ["kubectl", "TrainJob", "runtime", "rights of steps", "secret", "secret"]
    assert {row["state"] for row in rows} == {"ok"}
    assert {asked["user"] for asked in cluster.asked} == {"system:serviceaccount:team:default-editor"}
    assert len(cluster.asked) == len(RIGHTS)


@pytest.mark.parametrize(
    ("change", "check", "found", "mend"),
    [
        ({"served": []}, "TrainJob", "no trainer.kubeflow.org in this cluster", "install Kubeflow Trainer 2.3"),
        ({"served": ["v2"]}, "TrainJob", "serves v2, not v1alpha1", "install Kubeflow Trainer 2.3"),
        ({"unknown": ("runtimePatches",)}, "TrainJob", "older than 2.3", "install Kubeflow Trainer 2.3"),
        ({"runtimes": set()}, "runtime", "no torch-distributed", "apply manifests/overlays/runtimes"),
        ({"forbidden": {"delete trainjobs", "get pods/log"}}, "rights of steps",
         "default-editor may not delete trainjobs, get pods/log", "apply the Role"),
        ({"forbidden": {"create localsubjectaccessreviews"}}, "rights of steps", "cannot be asked: 403",
         "can-i create trainjobs.trainer.kubeflow.org -n team --as system:serviceaccount:team:default-editor"),
        ({"secrets": {"store": {}, "login": {}}}, "secret", "store has no KEY", "create secret -n team generic store"),
        ({"secrets": {"store": {"KEY": ""}}}, "secret", "no login in team", "create secret -n team docker-registry"),
        ({"unavailable": 9}, "kubectl", "context here: 503", "kubectl cluster-info"),
    ],
)  # fmt: skip
def test_what_is_lacking_is_one_row_and_how_to_mend_it(
    cluster: Kubernetes, change: dict[str, Any], check: str, found: str, mend: str
) -> None:
    for name, value in change.items():
        setattr(cluster, name, value)
    (row,) = [row for row in trainjobs.checks(SETTINGS) if row["state"] != "ok"]
    assert row["check"] == check
    assert found in row["found"]
    assert mend in row["mend"]


@pytest.mark.parametrize("text", [None, "", "{", "kind: Config"])
def test_without_kubectl_one_row_says_that_nothing_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    (row,) = trainjobs.checks(SETTINGS)
    assert (row["check"], row["state"]) == ("kubectl", "optional")
    assert "\n" not in row["found"]


def test_deploy_says_it_of_a_job_on_several_nodes_alone(cluster: Kubernetes) -> None:
    cluster.served = []
    assert list(nodes_findings(load_job("digits"), SETTINGS)) == []
    (one,) = nodes_findings(load_job("digits", ["resources.replicas=2"]), SETTINGS)
    assert (one.problem, one.text[:10]) == (False, "TrainJob: ")


def test_the_role_in_the_docs_is_what_steps_need() -> None:
    page = (DOCS / "distributed.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(apiVersion: rbac.*?)```", page, re.S)
    role, binding = yaml.safe_load_all(block)
    allowed = {(group, resource, verb) for rule in role["rules"] for group in rule["apiGroups"]
               for resource in rule["resources"] for verb in rule["verbs"]}  # fmt: skip
    assert allowed == set(RIGHTS)
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
