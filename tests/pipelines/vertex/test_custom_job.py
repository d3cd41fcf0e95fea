"""The custom job in which a step trains, as the server received it."""

from __future__ import annotations

import json

import pytest

from pipelines.jobs import load_job
from pipelines.settings import load_settings
from pipelines.vertex.deploy import Options, prepare
from tests.pipelines.vertex.test_preflight import only_line
from tests.pipelines.vertex.test_runs import ACCOUNT, KEY, NETWORK, deploy, monitor, sent

BOARD = "projects/demo/locations/us-central1/tensorboards/77"


@pytest.fixture
def board(cloud, monkeypatch):
    """A TensorBoard instance that the settings name."""
    monkeypatch.setattr(cloud.server.jobs, "tensorboards", {BOARD})
    monkeypatch.setenv("TEXTDIFFUSION_TENSORBOARD", BOARD)
    return BOARD


def custom_job(cloud, run, step="train"):
    from pipelines.vertex.monitor import launched

    detail = next(d for d in sent(cloud, run).job_detail.task_details if d.task_name == step)
    (name,) = launched(str(dict(detail.execution.metadata)["output:gcp_resources"]))
    return cloud.vertex.jobs.get_custom_job(name=name)


@pytest.mark.slow
def test_machine_spot_replicas_timeout_network_key_board_and_labels_arrive(cloud, command, board, monkeypatch):
    monkeypatch.setenv("TEXTDIFFUSION_NETWORK", NETWORK)
    monkeypatch.setenv("TEXTDIFFUSION_ENCRYPTION_KEY", KEY)
    monkeypatch.setenv("TEXTDIFFUSION_LABELS", "{owner: vision}")
    run = deploy(command, "--machine", "l4", "--spot", "--timeout-hours", "2", "--label", "team=images",
                 "--set", "resources.replicas=3", "--set", "train.learning_rate=0.61")  # fmt: skip
    assert monitor(command, run, "--follow")[0] == 0
    job = custom_job(cloud, run)
    first, rest = job.job_spec.worker_pool_specs
    assert (first.replica_count, rest.replica_count) == (1, 2)
    for pool in (first, rest):
        machine = pool.machine_spec
        assert (machine.machine_type, machine.accelerator_type.name, machine.accelerator_count) == (
            "g2-standard-8", "NVIDIA_L4", 1,
        )  # fmt: skip
        assert {item.name for item in pool.container_spec.env} >= {"TEXTDIFFUSION_IMAGE", "TEXTDIFFUSION_PROJECT"}
        assert {item.name: item.value for item in pool.container_spec.env}["TEXTDIFFUSION_GPUS"] == "1"
    scheduling = job.job_spec.scheduling
    assert scheduling.strategy.name == "SPOT"
    assert scheduling.restart_job_on_worker_restart
    assert scheduling.timeout.total_seconds() == 7200
    assert (job.job_spec.network, job.job_spec.service_account) == (NETWORK, ACCOUNT)
    assert job.encryption_spec.kms_key_name == KEY
    assert job.job_spec.tensorboard.endswith("us-central1/tensorboards/77")
    assert job.job_spec.base_output_directory.output_uri_prefix.startswith("gs://demo-bucket/tensorboard/toy-")
    assert (job.labels["owner"], job.labels["team"], job.labels["textdiffusion-job"]) == ("vision", "images", "toy")
    assert sent(cloud, run).labels["owner"] == "vision"


def test_training_is_cached_although_it_has_a_board(cloud, command, board):
    for state in ("succeeded", "cached"):
        run = deploy(command, "--set", "train.learning_rate=0.62", "--set", "data.limit=21")
        assert monitor(command, run, "--follow")[0] == 0
        found = json.loads(monitor(command, run, "--json")[1])["steps"]
        assert {step["name"]: step["state"] for step in found}["train"] == state


def test_preempted_training_on_demand_fails_and_is_not_restarted(cloud, command):
    cloud.server.fail("train", "preempt")
    run = deploy(command, "--no-spot", "--set", "train.seed=99", "--set", "train.learning_rate=0.63")
    assert monitor(command, run, "--follow")[0] == 1


@pytest.mark.parametrize(("place", "workers", "jobs"), [("--spot", 4 * 5, 3), ("--no-spot", 0, 0)])
def test_what_a_step_refused_is_not_done_again_when_the_service_starts_its_worker_again(
    cloud, command, place, workers, jobs
):
    run = deploy(command, place, "--set", f"train.learning_rate=6.{jobs}")
    assert monitor(command, run, "--follow")[0] == 1
    detail = next(d for d in sent(cloud, run).job_detail.task_details if d.task_name == "train")
    (name,) = [name for name, job in cloud.server.jobs.jobs.items() if job.display_name == "train"][-1:]
    assert cloud.server.jobs.jobs[name].job_spec.scheduling.disable_retries is (jobs == 0), detail.task_name
    said = list(cloud.server.logs.lines(name))
    assert sum("restarting the worker" in line for line in said) == workers
    assert sum("restarting the job" in line for line in said) == jobs
    assert said.count("train: 0/10 examples") == 1
    refused = "refused before this worker was started again: train: diverged"
    assert sum(refused in line for line in said) == workers + jobs


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("TENSORBOARD", "77", "tensorboard: found '77'; allowed: projects/NUMBER/locations/REGION/tensorboards/NUMBER"),
        ("TENSORBOARD", BOARD.replace("77", "78"), "78 does not exist; create one with `gcloud ai tensorboards create"),
        ("TENSORBOARD", BOARD.replace("us-central1", "us-east1"), "is in us-east1, the run in us-central1"),
        ("NETWORK", "default", "network: found 'default'; allowed: projects/NUMBER/global/networks/NAME"),
        ("ENCRYPTION_KEY", "k", "encryption_key: found 'k'; allowed: projects/P/locations/L/keyRings/R/cryptoKeys/K"),
        ("ENCRYPTION_KEY", KEY.replace("us-central1", "europe-west4"), "is in europe-west4, the run in us-central1"),
    ],
)
def test_places_that_are_not_there_are_said_before_anything_is_paid_for(
    cloud, command, monkeypatch, setting, value, words
):
    before = len(cloud.server.pipelines.jobs)
    monkeypatch.setenv(f"TEXTDIFFUSION_{setting}", f"'{value}'")
    only_line(command("deploy", "toy.yaml"), words)
    assert len(cloud.server.pipelines.jobs) == before


def test_board_needs_a_service_account(cloud, command, board, monkeypatch):
    monkeypatch.delenv("TEXTDIFFUSION_SERVICE_ACCOUNT")
    code, _, err = command("deploy", "toy.yaml")
    assert code == 2
    assert "tensorboard: needs an account of its own" in err


def test_cap_holds_on_every_machine_that_a_run_may_come_to(cloud, command):
    job = load_job("mnist-training", ["train.minutes=15"])
    result = command("deploy", "mnist-training", "--machine", "t4,h100", "--max-cost", "2", "--set", "train.minutes=15")
    only_line(result, "--max-cost 2: leaves")
    capped = prepare(cloud.vertex, job, load_settings(), Options(machines=("t4", "l4"), max_cost=2.0))
    alone = prepare(cloud.vertex, job, load_settings(), Options(machines=("t4",), max_cost=2.0))
    assert seconds(capped) < seconds(alone), "an hour of l4 costs more"


def seconds(plan):
    timeout = plan.submission.spec["components"]["comp-train"]["inputDefinitions"]["parameters"]["timeout"]
    return int(timeout["defaultValue"][:-1])
