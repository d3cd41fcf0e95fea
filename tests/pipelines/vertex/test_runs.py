"""Runs on Vertex AI: submitted, watched, failed, retried, cancelled; through the command line, by the real clients."""

from __future__ import annotations

import json
import re
import time

import pytest

from pipelines.vertex.logs import watch_logs
from pipelines.vertex.monitor import Step, View, launched

ACCOUNT = "pipelines@demo.iam.gserviceaccount.com"
NETWORK = "projects/1/global/networks/net"
KEY = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"


def deploy(command, *arguments):
    code, out, err = command("deploy", "toy.yaml", "--json", *arguments)
    assert code == 0, err
    return json.loads(out)["run"]


def monitor(command, run, *arguments):
    return command("monitor", run, "--interval", "0.5", *arguments)


def sent(cloud, run):
    """The run as the server received it."""
    return cloud.vertex.pipelines.get_pipeline_job(name=f"{cloud.vertex.project.parent}/pipelineJobs/{run}")


def experiments(cloud, run):
    """Names of the experiments that a run is in."""
    name = sent(cloud, run).job_detail.pipeline_run_context.name
    parents = [cloud.vertex.metadata.get_context(name=parent)
               for parent in cloud.vertex.metadata.get_context(name=name).parent_contexts]  # fmt: skip
    return {parent.display_name for parent in parents if parent.schema_title == "system.Experiment"}


def facts(command, run):
    return json.loads(monitor(command, run, "--json")[1])


def states(command, run):
    return {step["name"]: step["state"] for step in facts(command, run)["steps"]}


def test_run_is_followed_to_its_end_and_its_model_is_registered_in_bucket_and_registry(cloud, command):
    name = "first-model"
    run = deploy(command, "--no-cache", "--set", "train.learning_rate=0.5", "--set", f"job={name}")
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
    assert version.artifact_uri == f"gs://demo-bucket/registry/{name}/versions/00001"
    assert version.labels["code"] == "abc123"


def test_dry_run_submits_nothing_and_run_on_vertex_is_deploy(cloud, command):
    before = len(cloud.server.pipelines.jobs)
    code, out, _ = command("deploy", "toy.yaml", "--dry-run", "--max-cost", "5")
    assert code == 0
    assert re.search(r"estimate: (at most|about) \d+\.\d\d USD ", out)
    assert len(cloud.server.pipelines.jobs) == before
    code, out, _ = command("run", "toy.yaml", "--runner", "vertex", "--set", "train.learning_rate=0.51")
    assert code == 0
    run = out.split("watch: textdiffusion monitor ")[1].split()[0]
    assert f"run: {run}\n" in out
    assert monitor(command, run, "--follow")[0] == 0


def test_submitted_job_carries_labels_account_network_key_failure_policy_and_experiment(cloud, command, monkeypatch):
    monkeypatch.setenv("TEXTDIFFUSION_NETWORK", NETWORK)
    monkeypatch.setenv("TEXTDIFFUSION_ENCRYPTION_KEY", KEY)
    run = deploy(command, "--label", "team=images", "--experiment", "digits-sweep")
    job = sent(cloud, run)
    assert (job.service_account, job.network, job.encryption_spec.kms_key_name) == (ACCOUNT, NETWORK, KEY)
    assert (job.labels["team"], job.labels["textdiffusion-job"]) == ("images", "toy")
    assert job.runtime_config.failure_policy.name.endswith("FAIL_FAST")
    assert job.runtime_config.gcs_output_directory == f"gs://demo-bucket/images/{run}/steps"
    assert experiments(cloud, run) == {"digits-sweep"}
    assert monitor(command, run, "--follow")[0] == 0


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


def test_retry_goes_on_from_the_failed_step_in_the_same_experiment(cloud, command):
    cloud.server.fail("sample", "crash")
    run = deploy(command, "--set", "train.learning_rate=0.41", "--experiment", "retries", "--label", "team=images")
    assert monitor(command, run, "--follow")[0] == 1
    code, out, _ = command("retry", run)
    assert code == 0
    again = out.split()[1]
    assert monitor(command, again, "--follow")[0] == 0
    after = states(command, again)
    assert [after[name] for name in ("prepare-data", "train-judge", "train", "sample")] == [
        "cached", "cached", "cached", "succeeded",
    ]  # fmt: skip
    assert experiments(cloud, again) == {"retries"}
    assert (sent(cloud, again).labels["team"], sent(cloud, again).labels["textdiffusion-retry-of"]) == ("images", run)
    assert command("retry", again)[0] == 2, "there is nothing to retry"


def test_steps_are_retried_and_cached_as_each_is_told(cloud, command):
    cloud.server.fail("evaluate", "crash", times=2)
    lesson = ("--set", "train.learning_rate=0.47", "--set", "data.limit=25")
    run = deploy(command, *lesson, "--step", "evaluate.retries=2")
    assert monitor(command, run, "--follow")[0] == 0
    evaluate = next(d for d in sent(cloud, run).job_detail.task_details if d.task_name == "evaluate")
    assert len(evaluate.executor_detail.container_detail.failed_main_jobs) == 2
    again = deploy(command, *lesson, "--step", "evaluate.retries=2", "--step", "sample.cache=false")
    assert monitor(command, again, "--follow")[0] == 0
    after = states(command, again)
    assert [after[name] for name in ("prepare-data", "train", "sample")] == ["cached", "cached", "succeeded"]
    whole = deploy(command, *lesson, "--no-cache")
    assert monitor(command, whole, "--follow")[0] == 0
    assert "cached" not in states(command, whole).values()


def test_machines_are_tried_in_order_and_of_two_who_watch_one_starts_the_next(cloud, command):
    cloud.server.fail("train", "stockout")
    run = deploy(command, "--machine", "l4,t4", "--set", "train.learning_rate=0.42", "--experiment", "order")
    for _ in range(2):
        code, out, _ = monitor(command, run, "--follow")
        assert code == 0
        assert f"no l4 to be had; going on as {run}-machine-2 on t4" in out
    assert cloud.server.requests.count(("POST", f"/v1/{cloud.vertex.project.parent}/customJobs")) > 0
    started = [name for name in cloud.server.pipelines.jobs if f"/{run}" in name]
    assert len(started) == 2
    assert machine_of(cloud, run) is None, "it was never had"
    assert machine_of(cloud, f"{run}-machine-2") == ("n1-standard-4", "NVIDIA_TESLA_T4")
    assert experiments(cloud, f"{run}-machine-2") == {"order"}
    assert states(command, f"{run}-machine-2")["prepare-data"] == "cached"


@pytest.mark.parametrize(
    ("error", "lacking"),
    [
        ("The zone does not have enough resources available: STOCKOUT", True),
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS (resource type: compute)", True),
        ("RESOURCE_EXHAUSTED: Resources are insufficient in region: us-central1.", True),
        ("The replica workerpool0-0 exited with a non-zero status of 1.", False),
    ],
)
def test_a_failure_for_want_of_machines_is_known_by_its_words(error, lacking):
    step = Step("train", "failed", 0.0, None, error, (), {})
    assert (
        View("r", "j", "failed", 0.0, 0.0, "", Step("r", "failed", 0, None, "", (), {}, [step])).out_of_capacity
        is lacking
    )


def machine_of(cloud, run):
    """Machine and accelerator of the custom job in which a run trained."""
    train = next(d for d in sent(cloud, run).job_detail.task_details if d.task_name == "train")
    names = launched(str(dict(train.execution.metadata or {}).get("output:gcp_resources") or ""))
    if not names:
        return None
    machine = cloud.vertex.jobs.get_custom_job(name=names[0]).job_spec.worker_pool_specs[0].machine_spec
    return machine.machine_type, machine.accelerator_type.name


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


def test_logs_are_followed_while_steps_run_and_each_line_is_shown_once(cloud, command):
    run = deploy(command, "--set", "train.seed=99", "--set", "train.learning_rate=0.45", "--set", "data.limit=26")
    lines, running = [], False
    for step, entry in watch_logs(cloud.vertex, run, interval=0.1):
        lines.append((step, entry["jsonPayload"]["message"]))
        if step == "train" and "examples" in lines[-1][1] and not running:
            running = states(command, run)["train"] == "running"  # it sleeps for a minute
            assert command("cancel", run)[0] == 0
    assert running
    assert len(lines) == len(set(lines))
    assert not any("KFP Executor" in text for _, text in lines)
    code, out, _ = monitor(command, run, "--logs", "--follow")
    assert code == 130
    assert out.count("--- train\n") == 1
    whole = monitor(command, run, "--full", "--follow")[1]
    assert whole.index("--- prepare-data") < whole.index("Got executor_input") < whole.index("--- train")


def test_log_of_one_step_is_followed(cloud, command):
    run = deploy(command, "--set", "train.learning_rate=0.45")
    code, out, _ = monitor(command, run, "--logs", "--step", "train", "--follow")  # begins before the step does
    assert code == 0
    assert "train: 10/10 examples" in out
    assert "prepare" not in out
    assert monitor(command, run, "--logs", "--step", "trian", "--follow")[0] == 2


@pytest.mark.parametrize("arguments", [("monitor",), ("cancel",), ("retry",)])
def test_run_that_does_not_exist_is_one_line(cloud, command, arguments):
    code, _, err = command(*arguments, "no-such-run")
    assert code == 2
    assert err.startswith("error: run no-such-run: not found")
    assert err.count("\n") == 1


def test_short_outage_does_not_end_the_watch(cloud, command, monkeypatch):
    run = deploy(command, "--set", "train.learning_rate=0.46")
    answer, lost = cloud.server.answer, []

    def flaky(verb, target, content, accept):
        if "pipelineJobs/" in target and verb == "GET" and len(lost) < 2:
            lost.append(target)
            return 500, b'{"error": {"code": 500, "message": "backend", "status": "INTERNAL"}}'
        return answer(verb, target, content, accept)

    monkeypatch.setattr(cloud.server, "answer", flaky)
    from pipelines.vertex.monitor import follow

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
    version = json.loads(command("lineage", "toy@champion", "--json")[1])
    assert version["artifact"].startswith("toy@")
    assert version["parents"][0]["parents"][0]["data_hash"] == version["data_hash"]
