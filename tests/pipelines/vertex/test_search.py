"""A search in the cloud: a hyper-parameter tuning job whose trials run the image's own entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.cloud import aiplatform_v1 as v1

from components.tuning import study_metrics, study_parameters
from core import storage
from factory.job import AnyJob, parse_job
from pipelines import costs
from pipelines.checks import check_spec, read_spec, worker_pools
from pipelines.compile import ROOT, compile_job
from pipelines.machines import load_machines
from tests.core.asked import Steps
from tests.fakes import unprivileged
from tests.pipelines.test_compile import IMAGES, TEXT
from tests.pipelines.vertex.conftest import JOB, Cloud

steps = Steps("images")

SEARCH: dict[str, Any] = {
    "parameters": {"train.learning_rate": {"min": 0.5, "max": 4, "scale": "log"}},
    "trials": 3,
    "parallel": 2,
    "examples": 64,
}


def job(values: dict[str, Any], **search: Any) -> AnyJob:
    return parse_job({**values, "search": {**SEARCH, **search}}, "test")


@pytest.mark.parametrize("target", ["local", "vertex"])
@pytest.mark.parametrize("metric", ["validation_loss", "frechet_distance"])
@pytest.mark.parametrize("values", [IMAGES, TEXT, {**TEXT, "warm_start": False}], ids=["images", "warm", "cold"])
def test_every_kind_of_training_job_can_be_searched(values: dict[str, Any], metric: str, target: Any) -> None:
    made = job(values, metric=metric)
    assert check_spec(compile_job(made, target, image="r.example/t:1"), made) == []


def test_trials_are_handed_only_what_they_depend_on() -> None:
    for metric, measured in (("validation_loss", False), ("frechet_distance", True)):
        spec = read_spec(compile_job(job(IMAGES, metric=metric), "local", image="r.example/t:1"))[0]
        inputs = spec["components"]["comp-for-loop-1"]["dag"]["tasks"]["trial"]["inputs"]
        assert ("judge" in inputs["artifacts"], "evaluate_config" in inputs["parameters"]) == (measured, measured)
        assert not {"search_config", "train_config"} & set(inputs["parameters"])


def test_the_tuning_job_runs_the_training_machine_and_the_image() -> None:
    made = parse_job({**IMAGES, "resources": {"train": "l4"}, "search": SEARCH}, "test")
    spec = read_spec(compile_job(made, "vertex", image="r.example/t:1"))[0]
    pool = dict(worker_pools(spec))["trials"]
    assert pool["machine_spec"]["accelerator_type"] == "NVIDIA_L4"
    assert pool["container_spec"]["image_uri"] == "r.example/t:1-trials"
    assert {"name": "TEXTDIFFUSION_GPUS", "value": "1"} in pool["container_spec"]["env"]
    assert pool["container_spec"]["command"] == ["textdiffusion"]
    assert pool["container_spec"]["args"][:2] == ["trial", "--request"]
    task = spec["root"]["dag"]["tasks"]["trials"]
    assert "hyperparameter_tuning_job.launcher" in str(spec["deploymentSpec"]["executors"]["exec-trials"])
    assert '"scheduling": {"timeout": "86400s", "disable_retries": true}' in str(
        json.loads(spec["deploymentSpec"]["executors"]["exec-trials"]["container"]["args"][3])["Concat"]
    ).replace("\\'", "'"), "a trial that failed or took too long is not started again"
    assert task["inputs"]["parameters"]["max_trial_count"]["taskOutputParameter"]["producerTask"] == "plan-trials"


def test_a_study_is_what_the_service_takes() -> None:
    search = {
        **SEARCH,
        "better": "higher",
        "parameters": {
            "train.learning_rate": {"min": 1e-4, "max": 1e-2, "scale": "log"},
            "train.batch_size": {"values": [64, 16]},
        },
    }
    spec = v1.StudySpec(metrics=study_metrics(search), parameters=study_parameters(search))
    assert spec.metrics[0].goal == v1.StudySpec.MetricSpec.GoalType.MAXIMIZE
    rate, batch = spec.parameters
    assert (rate.parameter_id, rate.double_value_spec.max_value) == ("learning_rate", 1e-2)
    assert rate.scale_type == v1.StudySpec.ParameterSpec.ScaleType.UNIT_LOG_SCALE
    assert list(batch.discrete_value_spec.values) == [16, 64]
    counted = study_parameters({**SEARCH, "parameters": {"train.batch_size": {"min": 8, "max": 64}}})
    assert v1.StudySpec.ParameterSpec(counted[0]).integer_value_spec.max_value == 64
    named = study_parameters({**SEARCH, "trials": 2, "parameters": {"train.optimizer": {"values": ["adamw", "muon"]}}})
    assert list(v1.StudySpec.ParameterSpec(named[0]).categorical_value_spec.values) == ["adamw", "muon"]


def test_an_estimate_counts_every_trial() -> None:
    rows = load_machines()
    values = {**IMAGES, "train": {"minutes": 60}}
    price = rows["t4"].price()
    assert price is not None

    def trials(**search: Any) -> costs.StepCost:
        made = job(values, **search)
        spec = read_spec(compile_job(made, "vertex", image="r.example/t:1"))[0]
        return next(step for step in costs.estimate(spec, made, rows).steps if step.step == "trials")

    timed = trials(minutes=6, examples=None, trials=5)
    assert timed.usd == pytest.approx(5 * (0.1 + costs.STARTUP_HOURS) * price)
    assert not timed.bound
    bounded = trials(trials=4)
    assert bounded.usd == pytest.approx(4 * 24 * price)
    assert bounded.bound


@pytest.fixture
def opened() -> Iterator[Path]:
    """A folder that the steps' user may write, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_a_trials_entry_point_trains_and_reports_its_metric(opened: Path) -> None:
    steps.prepare_data({"source": "digits", "limit": 200}, opened / "data")
    search = {"parameters": {"train.learning_rate": {"min": 1e-4, "max": 1e-2, "scale": "log"}}, "examples": 64}
    request = {
        "modality": "images",
        "search": search,
        "model": {"network": {"channels": [8, 16], "blocks": [0, 1], "head_channels": 8, "embedding": 16}},
        "train": {"examples": 640, "batch_size": 32},
        "sample": None,
        "evaluate": None,
        "work": str(opened / "work"),
        "warm_start": False,
        "timeout_seconds": 600,
        "inputs": {"dataset": str(opened / "data")},
    }
    storage.write_json(opened / "request.json", request)
    metrics = opened / "hypertune" / "output.metrics"
    environment = {**os.environ, "CLOUD_ML_HP_METRIC_FILE": str(metrics), "CLOUD_ML_TRIAL_ID": "7"}
    command = [sys.executable, "-m", "components", "trial", "--request", str(opened / "request.json")]

    def trial(rate: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, f"--learning_rate={rate}"], cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=300, preexec_fn=unprivileged.become,
        )  # fmt: skip

    done = trial("1e-03")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["trial"], said["parameters"], said["examples_seen"]) == (7, {"train.learning_rate": 0.001}, 64)
    line = json.loads(metrics.read_text())
    assert float(line["validation_loss"]) == said["value"]
    assert line["global_step"] == "64"

    refused = trial("100")
    assert refused.returncode == 2
    assert "learning_rate" in refused.stderr.splitlines()[-1]

    metrics.unlink()
    metrics.parent.chmod(0o555)
    (opened / "work").rename(opened / "before")
    closed = trial("1e-03")
    metrics.parent.chmod(0o755)
    assert (closed.returncode, closed.stdout) == (2, "")
    assert "cannot write a trial's metric: Permission denied" in closed.stderr
    assert "tag ends in -trials" in closed.stderr
    assert not (opened / "work").exists(), "nothing was trained"


def test_a_search_on_vertex_trains_the_best_trial_and_asks_the_gate(cloud: Cloud, command: Any) -> None:
    Path("toy.yaml").write_text(f"{JOB}search: {json.dumps(SEARCH)}\n")
    code, out, err = command("deploy", "toy.yaml", "--search", "--follow", "--interval", "0.2", "--json")
    assert code == 0, out + err
    run = json.JSONDecoder().raw_decode(out)[0]["run"]
    code, out, err = command("monitor", run, "--json")
    states = {step["name"]: step["state"] for step in json.loads(out)["steps"]}
    assert {name: states[name] for name in ("plan-trials", "trials", "choose", "train", "evaluate", "gate")} == (
        dict.fromkeys(("plan-trials", "trials", "choose", "train", "evaluate", "gate"), "succeeded")
    ), out
    (tuned,) = cloud.server.tuning.jobs.values()
    assert tuned.state == v1.JobState.JOB_STATE_SUCCEEDED
    assert (tuned.max_trial_count, tuned.parallel_trial_count, len(tuned.trials)) == (3, 2, 3)
    values = {trial.id: trial.final_measurement.metrics[0].value for trial in tuned.trials}
    best = min(values, key=lambda number: values[number])
    folder = f"images-search/{run}/steps/"
    bucket = cloud.gcs.client().bucket("demo-bucket")
    name = next(name for name in cloud.gcs.names("demo-bucket", folder) if name.endswith("search.json"))
    found = json.loads(bucket.blob(name).download_as_text())
    assert str(found["best"]) == best
    model = next(n for n in cloud.gcs.names("demo-bucket", folder) if "/train_" in n and n.endswith("model.json"))
    trained = json.loads(bucket.blob(model).download_as_text())
    assert trained["quality"] == found["settings"]["train.learning_rate"]
    code, out, _ = command("monitor", run, "--logs", "--step", "trials")
    assert code == 0
    assert '"trial": 3' in out
