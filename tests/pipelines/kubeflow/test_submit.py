"""Runs on Kubeflow go through the real `kfp.Client` to a server that reads them with KFP's own models and protos."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.step import TRAIN_JOB
from core.errors import UserError
from pipelines.jobs import load_job
from pipelines.kubeflow.service import KubeflowService
from pipelines.service import Options, deploy
from pipelines.settings import load_settings
from tests.fakes.kubeflow import KubeflowServer
from tests.fakes.kubernetes import check
from textdiffusion.cli.app import main

PLAIN = Options()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowServer]:
    monkeypatch.setenv("HOME", str(tmp_path))  # kfp.Client keeps a file there
    with KubeflowServer() as made:
        yield made


def service(server: KubeflowServer, **more: str) -> KubeflowService:
    values = {"kubeflow_host": server.url, "registry": "gs://bucket/registry", "image": "registry.example/td:1"}
    return KubeflowService(load_settings({**values, **more}, file=Path("absent"), environment={}))


def submit(server, job, options=PLAIN, **more):
    """The run as the server got it, and the lines that were told."""
    told = []
    deploy(service(server, **more), job, options, told.append)
    (run,) = server.runs.values()
    return run, told


def test_run_arrives_with_its_parameters_image_accelerator_and_node_selector(server):
    run, told = submit(server, load_job("digits", ["resources.train=l4", "resources.sample=cpu"]))
    assert told[-1] == f"page: {server.url}/#/runs/details/{run.run_id}"
    parameters = run.runtime_config.parameters
    assert (parameters["registry"], parameters["run"]) == ("gs://bucket/registry", run.display_name)
    assert parameters["train"]["batch_size"] == 128
    documents = run.pipeline_spec
    executors = documents["pipeline_spec"]["deploymentSpec"]["executors"]
    assert executors["exec-train"]["container"]["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert {executor["container"]["image"] for executor in executors.values()} == {"registry.example/td:1"}
    platform = documents["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert platform["exec-train"]["nodeSelector"]["labels"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert not any("google-cloud-pipeline-components" in json.dumps(e) for e in executors.values())


def test_experiment_pipeline_root_account_and_step_options_arrive(server):
    options = Options(experiment="trials", steps=("train.retries=2",), cache=False, machines=("l4",))
    more = {"kubeflow_root": "gs://bucket/root", "kubeflow_service_account": "pipeline-runner"}
    run, _ = submit(server, load_job("digits"), options, **more)
    assert server.experiments[run.experiment_id].display_name == "trials"
    assert (run.runtime_config.pipeline_root, run.service_account) == ("gs://bucket/root", "pipeline-runner")
    tasks = run.pipeline_spec["pipeline_spec"]["root"]["dag"]["tasks"]
    assert tasks["train"]["retryPolicy"]["maxRetryCount"] == 2
    assert not any("cachingOptions" in task for task in tasks.values())
    container = run.pipeline_spec["pipeline_spec"]["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert container["resources"]["accelerator"]["resourceCount"] == "1"


def test_a_training_on_several_nodes_waits_in_a_small_pod_and_carries_its_train_job(server):
    job = load_job("digits", ["resources.train=l4", "resources.replicas=3"])
    settings = {"kubeflow_environment": {"A": "1"}, "kubeflow_secrets": {"store": ["KEY"]},
                "kubeflow_service_account": "pipeline-runner"}  # fmt: skip
    run, _ = submit(server, job, **settings)
    executors = run.pipeline_spec["pipeline_spec"]["deploymentSpec"]["executors"]
    container = executors["exec-train"]["container"]
    assert "accelerator" not in container["resources"]
    assert container["resources"]["resourceCpuRequest"] == "0.5"
    variables = {item["name"]: item["value"] for item in container["env"]}
    body = json.loads(variables[TRAIN_JOB])
    body["metadata"]["name"] = "train-1"
    check(body)
    node = body["spec"]["trainer"]
    assert (node["numNodes"], node["image"]) == (3, "registry.example/td:1")
    assert node["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "A", "value": "1"} in node["env"]
    assert {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "store", "key": "KEY"}}} in node["env"]
    (patch,) = body["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template = patch["template"]["spec"]["template"]
    pod, off = template["spec"], {"sidecar.istio.io/inject": "false"}
    assert (template["metadata"]["labels"], template["metadata"]["annotations"]) == (off, off)
    assert pod["serviceAccountName"] == "pipeline-runner"
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    steps = [name for name, executor in executors.items() if TRAIN_JOB in json.dumps(executor)]
    assert steps == ["exec-train"]


def test_variables_and_secrets_reach_every_step(server):
    run, _ = submit(
        server, load_job("digits", ["resources.train=l4"]),
        kubeflow_environment={"AWS_ENDPOINT_URL": "http://minio:9000"},
        kubeflow_secrets={"store": ["AWS_ACCESS_KEY_ID"]},
    )  # fmt: skip
    executors = run.pipeline_spec["pipeline_spec"]["deploymentSpec"]["executors"]
    for executor in executors.values():
        assert {"name": "AWS_ENDPOINT_URL", "value": "http://minio:9000"} in executor["container"]["env"]
    platform = run.pipeline_spec["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(platform) == set(executors)
    for settings in platform.values():
        (secret,) = settings["secretAsEnv"]
        assert secret["keyToEnv"] == [{"secretKey": "AWS_ACCESS_KEY_ID", "envVar": "AWS_ACCESS_KEY_ID"}]
        assert secret["secretNameParameter"]["runtimeValue"]["constant"] == secret["secretName"] == "store"
    assert "nodeSelector" in platform["exec-train"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"kubeflow_host": ""}, "kubeflow_host is not set"),
        ({"kubeflow_host": "http://127.0.0.1:9"}, "not reachable"),
        ({"registry": "registry"}, "registry: registry is on this machine"),
        ({"kubeflow_root": "here"}, "kubeflow_root: here: Kubeflow.s launcher opens gs://"),
    ],
)
def test_what_cannot_be_submitted_is_one_line(server, changed, words):
    with pytest.raises(UserError, match=words):
        submit(server, load_job("digits"), **changed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(spot=True), "--spot: is for Vertex AI; on Kubeflow choose a row"),
        (Options(machines=("t4", "l4")), "--machine with several rows"),
        (Options(max_cost=5.0), "--max-cost: is for Vertex AI"),
        (Options(labels={"a": "b"}), "--label: is for Vertex AI"),
        (Options(machines=("none",)), "--machine: found 'none'"),
    ],
)
def test_options_without_a_meaning_there_are_refused(server, options, words):
    with pytest.raises(UserError, match=words):
        submit(server, load_job("digits"), options)
    assert not server.runs


@pytest.mark.parametrize(
    ("version", "search", "words"),
    [
        ("2.0.5", False, "is version 2.0; 2.3 is the first that lets steps write as no root"),
        ("1.8.5", False, "is version 1.8"),
        ("2.13.0", True, "is version 2.13; 2.14 is the first that collects what steps in a loop have made"),
    ],
)
def test_a_server_that_is_too_old_is_refused(server, version, search, words):
    server.version = version
    section = "search={parameters: {train.learning_rate: {min: 1e-4, max: 1e-2}}, examples: 2000}"
    with pytest.raises(UserError, match=words):
        submit(server, load_job("digits", [section] if search else [], search=search))
    assert not server.runs


def test_a_plan_that_asks_nobody_needs_no_server(server):
    plan = service(server, kubeflow_host="http://127.0.0.1:9").prepare(load_job("digits"), PLAIN, ask=False)
    assert (plan.problems, plan.estimate, plan.submission.pipeline) == ([], None, "images")


def test_a_server_that_tells_no_version_is_noted(server):
    server.version = "unknown"
    _, told = submit(server, load_job("digits"))
    assert told[0] == f"note: kubeflow {server.url}: tells no version (says unknown); it must be 2.3 or newer"


def test_an_installation_of_several_users_wants_a_namespace(server):
    server.multi_user = True
    with pytest.raises(UserError, match="kubeflow_namespace: is not set, and this installation has several users"):
        submit(server, load_job("digits"))
    run, _ = submit(server, load_job("digits"), kubeflow_namespace="team")
    assert server.experiments[run.experiment_id].namespace == "team"
    server.multi_user = False
    with pytest.raises(UserError, match="kubeflow_namespace: is team, and this installation has one user; remove it"):
        submit(server, load_job("digits"), kubeflow_namespace="team")


@pytest.mark.parametrize(
    ("login", "words"),
    [
        (302, r"answered with a login page \(302 to http.*/dex/auth\)"),
        (200, r"answered with a login page \(a web page in place of JSON\)"),
        (401, "401, it does not know who this is: Unauthorized"),
        (403, "403, permission denied: Request is not authorized"),
    ],
)
def test_who_is_not_let_in_is_told_so_and_nothing_is_called_submitted(server, login, words, monkeypatch, capsys):
    server.token, server.login = "secret", login
    monkeypatch.setenv("TEXTDIFFUSION_KUBEFLOW_HOST", server.url)
    monkeypatch.setenv("TEXTDIFFUSION_REGISTRY", "gs://bucket/registry")
    for arguments in (["run", "digits", "--runner", "kubeflow"], ["monitor", "a-run"], ["schedule", "list"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capsys.readouterr()
        assert ended.value.code == 2
        assert (err.count("\n"), "run:" in out) == (1, False)
        assert re.search(words, err), err
    assert not server.runs


def test_command_submits_and_a_renewed_token_is_read_again(server, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    server.token = "secret"
    (tmp_path / "token").write_text("old\n")
    for name, value in (("HOST", server.url), ("TOKEN_FILE", str(tmp_path / "token"))):
        monkeypatch.setenv(f"TEXTDIFFUSION_KUBEFLOW_{name}", value)
    monkeypatch.setenv("TEXTDIFFUSION_REGISTRY", "gs://bucket/registry")
    with pytest.raises(SystemExit) as ended:
        main(["run", "digits", "--runner", "kubeflow"])
    assert ended.value.code == 2
    (tmp_path / "token").write_text("secret\n")
    with pytest.raises(SystemExit) as ended:
        main(["run", "digits", "--runner", "kubeflow"])
    assert ended.value.code == 0
    (run,) = server.runs.values()
    assert f"watch: textdiffusion monitor {run.display_name} --follow" in capsys.readouterr().out


def test_model_on_this_machine_is_refused(server):
    job = load_job("mnist-sampling", ["source.model=./model"])
    with pytest.raises(UserError, match=r"source\.model: \./model is on this machine"):
        submit(server, job)


def test_data_on_this_machine_is_refused(server, tmp_path):
    with pytest.raises(UserError, match=r"data\.data_dir: .* is on this machine"):
        submit(server, load_job("mnist-training", [f"data.data_dir={tmp_path}"]))
