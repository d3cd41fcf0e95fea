"""Runs on Kubeflow go through the real `kfp.Client` to a server that reads them with KFP's own protos."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import UserError
from pipelines.jobs import load_job
from pipelines.kubeflow.submit import submit_job, wait
from pipelines.settings import load_settings
from tests.fakes.kubeflow import KubeflowServer


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowServer]:
    monkeypatch.setenv("HOME", str(tmp_path))  # kfp.Client keeps a file there
    with KubeflowServer() as made:
        yield made


def settings(server: KubeflowServer, **more: str):
    values = {"kubeflow_host": server.url, "registry": "gs://bucket/registry", "image": "registry.example/td:1"}
    return load_settings({**values, **more}, file=Path("absent"), environment={})


def test_run_arrives_with_its_parameters_image_accelerator_and_node_selector(server):
    found = submit_job(load_job("digits", ["resources.train=l4", "resources.sample=cpu"]), settings(server))
    run = server.runs[found["id"]]
    assert found["url"] == f"{server.url}/#/runs/details/{found['id']}"
    parameters = run["runtime_config"]["parameters"]
    assert (parameters["registry"], parameters["run"]) == ("gs://bucket/registry", run["display_name"])
    assert parameters["train"]["batch_size"] == 128
    documents = run["pipeline_spec"]
    executors = documents["pipeline_spec"]["deploymentSpec"]["executors"]
    assert executors["exec-train"]["container"]["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert {executor["container"]["image"] for executor in executors.values()} == {"registry.example/td:1"}
    platform = documents["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert platform["exec-train"]["nodeSelector"]["labels"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert not any("google-cloud-pipeline-components" in json.dumps(e) for e in executors.values())


def test_end_of_a_run_is_waited_for(server):
    found = submit_job(load_job("digits"), settings(server))
    server.state = "FAILED"
    assert wait(server.url, found["id"], settings(server), timeout=10, interval=0.1) == "failed"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"kubeflow_host": ""}, "kubeflow_host is not set"),
        ({"kubeflow_host": "http://127.0.0.1:9"}, "not reachable"),
        ({"registry": "registry"}, "registry: registry is on this machine"),
    ],
)
def test_what_cannot_be_submitted_is_one_line(server, changed, words):
    with pytest.raises(UserError, match=words):
        submit_job(load_job("digits"), settings(server, **changed))


def test_command_submits_and_says_where_to_look(server, monkeypatch, capsys, tmp_path):
    from textdiffusion.cli.app import main

    monkeypatch.chdir(tmp_path)
    server.token = "secret"
    for name, value in (("HOST", server.url), ("TOKEN", "secret"), ("NAMESPACE", "team")):
        monkeypatch.setenv(f"TEXTDIFFUSION_KUBEFLOW_{name}", value)
    monkeypatch.setenv("TEXTDIFFUSION_REGISTRY", "gs://bucket/registry")
    with pytest.raises(SystemExit) as ended:
        main(["run", "digits", "--runner", "kubeflow"])
    assert ended.value.code == 0
    (identity,) = server.runs
    assert f"watch: {server.url}/#/runs/details/{identity}" in capsys.readouterr().out
    monkeypatch.setenv("TEXTDIFFUSION_KUBEFLOW_TOKEN", "old")
    with pytest.raises(SystemExit) as ended:
        main(["run", "digits", "--runner", "kubeflow"])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "403" in err


def test_model_on_this_machine_is_refused(server):
    job = load_job("mnist-sampling", ["source.model=./model"])
    with pytest.raises(UserError, match=r"source\.model: \./model is on this machine"):
        submit_job(job, settings(server))


def test_data_on_this_machine_is_refused(server, tmp_path):
    with pytest.raises(UserError, match=r"data\.data_dir: .* is on this machine"):
        submit_job(load_job("mnist-training", [f"data.data_dir={tmp_path}"]), settings(server))
