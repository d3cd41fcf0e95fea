"""Runs on Vertex AI: submitted, watched, failed, retried, cancelled; through the command line, by the real clients."""

from __future__ import annotations

import json
import time

import pytest


def deploy(command, *arguments):
    code, out, err = command("deploy", "toy.yaml", "--json", *arguments)
    assert code == 0, err
    return json.loads(out)["run"]


def monitor(command, run, *arguments):
    return command("monitor", run, "--interval", "0.1", *arguments)


def facts(command, run):
    return json.loads(monitor(command, run, "--json")[1])


def states(command, run):
    return {step["name"]: step["state"] for step in facts(command, run)["steps"]}


def test_run_is_followed_to_its_end_and_its_model_is_registered_in_bucket_and_registry(cloud, command):
    name = "first-model"
    run = deploy(command, "--set", "train.learning_rate=0.5", "--set", f"job={name}")
    code, out, _ = monitor(command, run, "--follow")
    assert code == 0
    assert f"{run} succeeded" in out
    assert states(command, run) == {
        "prepare-data": "succeeded", "train-judge": "succeeded", "train": "succeeded", "sample": "succeeded",
        "evaluate": "succeeded", "gate": "succeeded", "register": "succeeded", "keep": "skipped",
    }  # fmt: skip
    assert cloud.gcs.names("demo-bucket", f"registry/{name}/versions/00001/manifest.json")
    listed = cloud.vertex.models.list_model_versions(name=f"{cloud.vertex.project.parent}/models/{name}")
    (version,) = listed
    assert set(version.version_aliases) == {"default", "v1", "champion"}
    assert version.artifact_uri == f"gs://demo-bucket/registry/{name}/versions/00001/model"
    assert version.labels["code"] == "abc123"


def test_submitted_job_carries_labels_account_network_key_failure_policy_and_experiment(cloud, command, monkeypatch):
    network, key = "projects/1/global/networks/net", "projects/p/locations/l/keyRings/r/cryptoKeys/k"
    monkeypatch.setenv("TEXTDIFFUSION_NETWORK", network)
    monkeypatch.setenv("TEXTDIFFUSION_ENCRYPTION_KEY", key)
    run = deploy(command, "--label", "team=images", "--experiment", "digits-sweep", "--spot")
    name = f"{cloud.vertex.project.parent}/pipelineJobs/{run}"
    job = cloud.vertex.pipelines.get_pipeline_job(name=name)
    assert (job.service_account, job.network, job.encryption_spec.kms_key_name) == (
        "pipelines@demo.iam.gserviceaccount.com", network, key,
    )  # fmt: skip
    assert (job.labels["team"], job.labels["textdiffusion-job"]) == ("images", "toy")
    assert job.runtime_config.failure_policy.name.endswith("FAIL_FAST")
    assert job.runtime_config.gcs_output_directory == f"gs://demo-bucket/images/{run}/steps"
    context = cloud.vertex.metadata.get_context(name=job.job_detail.pipeline_run_context.name)
    assert any(parent.endswith("/contexts/digits-sweep") for parent in context.parent_contexts)
    assert monitor(command, run, "--follow")[0] == 0
    custom = [job for job in cloud.vertex.jobs.list_custom_jobs(parent=cloud.vertex.project.parent)
              if job.job_spec.scheduling.strategy.name == "SPOT"]  # fmt: skip
    assert custom[0].job_spec.scheduling.restart_job_on_worker_restart


def test_failed_step_gives_its_error_its_log_and_the_run_its_exit_code(cloud, command):
    run = deploy(command, "--set", "data.limit=13")
    code, out, err = monitor(command, run, "--follow")
    assert code == 1
    assert "prepare-data  failed" in out
    assert err.startswith("error: step prepare-data failed: ")
    assert f"textdiffusion retry {run}" in err
    code, out, _ = monitor(command, run, "--logs")
    assert out.strip().endswith("error: data.limit: found 13; allowed: lucky numbers")
    assert "KFP Executor" not in out
    assert "Got executor_input" in monitor(command, run, "--full", "--step", "prepare-data")[1]
    assert set(states(command, run).values()) == {"failed", "skipped"}


def test_retry_goes_on_from_the_failed_step(cloud, command):
    cloud.server.fail("sample", "crash")
    run = deploy(command, "--set", "train.learning_rate=0.41")
    assert monitor(command, run, "--follow")[0] == 1
    code, out, _ = command("retry", run)
    assert code == 0
    again = out.split()[1]
    assert monitor(command, again, "--follow")[0] == 0
    after = states(command, again)
    assert [after[name] for name in ("prepare-data", "train-judge", "train", "sample")] == [
        "cached", "cached", "cached", "succeeded",
    ]  # fmt: skip
    assert command("retry", again)[0] == 2, "there is nothing to retry"


def test_machines_are_tried_in_order(cloud, command):
    cloud.server.fail("train", "stockout")
    code, out, _ = command(
        "deploy",
        "toy.yaml",
        "--machine",
        "l4,t4",
        "--set",
        "train.learning_rate=0.42",
        "--follow",
        "--interval",
        "0.1",
    )
    assert code == 0
    assert "no l4 to be had; going on as" in out
    used = [pool.machine_spec.accelerator_type.name
            for job in cloud.vertex.jobs.list_custom_jobs(parent=cloud.vertex.project.parent)
            for pool in job.job_spec.worker_pool_specs if job.labels is not None and job.display_name == "train"
            and pool.machine_spec.accelerator_type]  # fmt: skip
    assert used[0] == "NVIDIA_TESLA_T4"


def test_preempted_training_is_restarted_and_resumes(cloud, command, monkeypatch):
    cloud.server.fail("train", "preempt")
    run = deploy(command, "--spot", "--set", "train.seed=99", "--set", "train.learning_rate=0.43")
    assert monitor(command, run, "--follow")[0] == 0
    train = next(
        s
        for s in cloud.vertex.pipelines.get_pipeline_job(
            name=f"{cloud.vertex.project.parent}/pipelineJobs/{run}"
        ).job_detail.task_details
        if s.task_name == "train"
    )
    assert dict(train.outputs["model"].artifacts[0].metadata)["resumed"] is True
    assert "preempted; restarting" in monitor(command, run, "--logs", "--step", "train")[1]


def test_cancelled_run_ends_with_its_own_exit_code(cloud, command):
    run = deploy(command, "--set", "train.seed=99", "--set", "train.learning_rate=0.44", "--set", "train.keep=3")
    ended = {}
    while states(command, run).get("train") != "running":
        time.sleep(0.05)
    assert command("cancel", run)[0] == 0
    ended["code"] = monitor(command, run, "--follow")[0]
    assert ended["code"] == 130
    assert states(command, run)["train"] == "cancelled"
    assert command("cancel", run)[0] == 2, "it has ended"


def test_log_is_followed_line_by_line(cloud, command):
    run = deploy(command, "--set", "train.learning_rate=0.45")
    assert monitor(command, run, "--follow")[0] == 0
    code, out, _ = monitor(command, run, "--logs", "--step", "train", "--follow")
    assert code == 0
    assert "train: 10/10 examples" in out


@pytest.mark.parametrize("arguments", [("monitor",), ("cancel",), ("retry",)])
def test_run_that_does_not_exist_is_one_line(cloud, command, arguments):
    code, _, err = command(*arguments, "no-such-run")
    assert code == 2
    assert err.startswith("error: run no-such-run: not found")
    assert err.count("\n") == 1


def test_short_outage_does_not_end_the_watch(cloud, command, monkeypatch):
    run = deploy(command, "--set", "train.learning_rate=0.46")
    answer, lost = cloud.server.answer, []

    def flaky(verb, target, content):
        if "pipelineJobs/" in target and verb == "GET" and len(lost) < 2:
            lost.append(target)
            return 500, b'{"error": {"code": 500, "message": "backend", "status": "INTERNAL"}}'
        return answer(verb, target, content)

    monkeypatch.setattr(cloud.server, "answer", flaky)
    from pipelines.monitor import follow

    assert follow(cloud.vertex, run, lambda shown: None, interval=0.1).state == "succeeded"
    assert len(lost) == 2


def test_runs_in_the_cloud_are_listed_shown_and_compared(cloud, command):
    first = deploy(command, "--set", "train.learning_rate=0.5")
    second = deploy(command, "--set", "train.learning_rate=0.25")
    for run in (first, second):
        assert monitor(command, run, "--follow")[0] == 0
    listed = json.loads(command("runs", "--cloud", "--json")[1])
    assert [row["id"] for row in listed][-2:] == [first, second]
    compared = json.loads(command("compare", first, second, "--json")[1])
    (metric,) = compared["metrics"]
    assert metric["change"] == pytest.approx(1 / 0.25 - 1 / 0.5)
    assert {"setting": "train.learning_rate", "first": 0.5, "second": 0.25} in compared["settings"]
    assert "gate: " in command("show", second)[1]
    stored = json.loads(cloud.gcs.client().bucket("demo-bucket").blob(f"images/{first}/run.json").download_as_text())
    assert stored["status"] == "succeeded"


def test_lineage_in_the_cloud_leads_from_samples_to_data_code_image_and_configuration(cloud, command):
    run = deploy(command, "--set", "train.learning_rate=0.5")
    assert monitor(command, run, "--follow")[0] == 0
    tree = json.loads(command("lineage", f"{run}/samples", "--json")[1])
    assert (tree["artifact"], tree["step"]) == ("samples", "sample")
    (model,) = tree["parents"]
    (data,) = model["parents"]
    assert (model["step"], data["step"]) == ("train", "prepare-data")
    assert len(data["data_hash"]) == 64
    assert model["data_hash"] == data["data_hash"]
    assert model["code_version"] == "abc123"
    assert model["image"].endswith("textdiffusion:test")
    assert '"learning_rate":0.5' in model["config"]
    assert json.loads(command("lineage", tree["uri"], "--json")[1]) == tree
