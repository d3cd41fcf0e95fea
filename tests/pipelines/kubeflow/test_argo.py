"""What is sent to Kubeflow, read by Kubeflow Pipelines' own compiler to Argo: `make test-kubeflow KFP=FOLDER`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.jobs import job_names, load_job
from pipelines.kubeflow.service import KubeflowService
from pipelines.service import Options, Submission
from pipelines.settings import load_settings

CHECKOUT = Path(os.environ.get("TEXTDIFFUSION_KFP") or "absent").absolute()
PROGRAM = Path(__file__).parent / "argo" / "main.go"
PLACE = "backend/src/v2/cmd/textdiffusion"  # in the checkout, as the compiler sees it; nothing is written there
SETTINGS = {
    "kubeflow_host": "http://127.0.0.1:1",  # is not asked
    "registry": "s3://bucket/registry",
    "image": "registry.example/textdiffusion:1",
    "machines": {
        "mine": {
            "machine_type": "g2-standard-8",
            "cpu": 8,
            "memory_gb": 32,
            "accelerator_type": "NVIDIA_L4",
            "accelerator_count": 1,
            "node_selector": {"pool": "gpu"},
            "kubernetes": {"labels": {"team": "blue"}, "retries": 3},
        },
    },
}
LACKING = (
    "needs Go"
    if shutil.which("go") is None
    else "needs a checkout of https://github.com/kubeflow/pipelines: make test-kubeflow KFP=FOLDER"
)
pytestmark = pytest.mark.skipif(shutil.which("go") is None or not (CHECKOUT / "go.mod").is_file(), reason=LACKING)


@pytest.fixture(scope="module")
def workflow(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Submission], dict[str, Any]]:
    """The Argo Workflow that Kubeflow Pipelines makes of what is sent."""
    folder = tmp_path_factory.mktemp("argo")
    overlay, program = folder / "overlay.json", folder / "compile"
    overlay.write_text(json.dumps({"Replace": {str(CHECKOUT / PLACE / "main.go"): str(PROGRAM)}}))
    build = ["go", "build", "-overlay", str(overlay), "-o", str(program), f"./{PLACE}"]
    built = subprocess.run(build, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-2000:]

    def compiled(sent: Submission) -> dict[str, Any]:
        job = {"name": sent.run, "pipelineSpec": sent.spec, "runtimeConfig": {"parameterValues": sent.parameters}}
        body = json.dumps({"job": job, "platform": of_kubernetes(sent)})
        told = subprocess.run([program], input=body, capture_output=True, text=True, check=True)
        made: dict[str, Any] = json.loads(told.stdout)
        assert "error" not in made, made
        return made

    return compiled


def sent(name: str, *changed: str, options: Options = Options()) -> Submission:  # noqa: B008
    service = KubeflowService(load_settings(SETTINGS, file=Path("absent"), environment={}))
    data = ["data.data_dir=s3://bucket/data"] if load_job(name).data.data_dir else []
    return service.prepare(load_job(name, [*data, *changed]), options, ask=False).submission


def of_kubernetes(sent: Submission) -> dict[str, Any]:
    """What is sent beside the pipeline: node selectors, labels, secrets; a job may need none."""
    known: dict[str, Any] = (sent.platform or {}).get("platforms", {}).get("kubernetes", {})
    return known


def dags(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tasks of each graph in a pipeline, by its component; `root` is the whole."""
    parts = {"root": spec["root"], **spec["components"]}
    return {name: part["dag"]["tasks"] for name, part in parts.items() if "dag" in part}


def parameters(made: dict[str, Any], kind: str) -> list[Any]:
    """What the workflow hands its drivers, of one kind."""
    given = made["spec"]["arguments"]["parameters"]
    return [json.loads(one["value"]) for one in given if one["name"].startswith(f"{kind}-")]


@pytest.mark.parametrize("name", job_names())
def test_every_step_of_every_job_is_in_its_workflow(
    name: str, workflow: Callable[[Submission], dict[str, Any]]
) -> None:
    again = [Options(retraining=True)] if "train" in type(load_job(name)).model_fields else []
    for options in (Options(), *again):
        asked = sent(name, options=options)
        made = workflow(asked)
        graphs = {one["name"]: one["dag"]["tasks"] for one in made["spec"]["templates"] if "dag" in one}
        for graph, tasks in dags(asked.spec).items():
            known = {task["name"]: task for task in graphs[graph]}
            drivers = {f"{task}-driver" for task, facts in tasks.items() if "parameterIterator" not in facts}
            assert known.keys() == tasks.keys() | drivers
            for task, facts in tasks.items():
                if facts.get("triggerPolicy", {}).get("condition"):  # the gate's branches
                    assert known[task]["when"].endswith(" != false")
        assert {one["image"] for one in parameters(made, "implementations")} == {SETTINGS["image"]}
        wanted = of_kubernetes(asked).get("deploymentSpec", {}).get("executors", {}).values()
        assert all(one in parameters(made, "kubernetes") for one in wanted)


def test_a_row_of_machines_reaches_the_pods(workflow: Callable[[Submission], dict[str, Any]]) -> None:
    made = workflow(sent("digits", "resources.train=mine"))
    selected = [one["nodeSelector"]["labels"] for one in parameters(made, "kubernetes")]
    assert selected.count({"pool": "gpu"}) == 1
    templates = {one["name"]: one for one in made["spec"]["templates"]}
    (train,) = [one for one in templates["root"]["dag"]["tasks"] if one["name"] == "train"]
    given = {one["name"]: one.get("value") for one in train["arguments"]["parameters"]}
    assert (given["retry-max-count"], given["retry-backoff-duration"]) == ("3", "60")
    assert "blue" in given.values()
    pod = templates[templates[train["template"]]["dag"]["tasks"][0]["template"]]
    assert pod["retryStrategy"]["limit"] == "{{inputs.parameters.retry-max-count}}"
    assert {"/gcs", "/s3", "/minio"} < {one["mountPath"] for one in pod["container"]["volumeMounts"]}  # of no root
    assert "KFP_POD_NAME" in {one["name"] for one in pod["container"]["env"]}  # by which a retry finds its TrainJob
