"""Runs on Kubeflow: followed, failed, retried, cancelled, shown, downloaded; through the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from pipelines.kubeflow.runs import view


def deploy(command, *arguments):
    code, out, err = command("deploy", "toy.yaml", "--json", *arguments)
    assert code == 0, err
    return json.loads(out)["run"]


def monitor(command, run, *arguments):
    return command("monitor", run, "--interval", "0.1", *arguments)


def states(command, run):
    return {step["name"]: step["state"] for step in json.loads(monitor(command, run, "--json")[1])["steps"]}


def test_run_is_followed_to_its_end_shown_compared_and_downloaded(cluster, command, tmp_path):
    run = deploy(command, "--set", "train.learning_rate=0.5", "--set", "job=walk")
    code, out, err = monitor(command, run, "--follow")
    assert code == 0, err
    assert f"{run} succeeded" in out
    assert states(command, run) == {
        "prepare-data": "succeeded", "train-judge": "succeeded", "train": "succeeded", "sample": "succeeded",
        "evaluate": "succeeded", "gate": "succeeded", "register": "succeeded", "keep": "skipped",
    }  # fmt: skip
    assert cluster.gcs.names("demo-bucket", "registry/walk/versions/00001/manifest.json")
    listed = json.loads(command("runs", "--cloud", "--job", "walk", "--json")[1])
    assert [(row["id"], row["status"], row["steps"], row["usd"]) for row in listed] == [(run, "succeeded", "7/8", None)]
    assert "gate: promote" in command("show", run)[1]
    code, out, err = command("download", run, str(tmp_path / "copy"))
    assert code == 0, err
    assert (tmp_path / "copy" / "metrics.json").is_file()
    assert command("show", str(tmp_path / "copy"))[0] == 0
    tree = json.loads(command("lineage", "walk@champion", "--json")[1])
    assert (tree["run"], tree["code_version"]) == (run, "abc123")
    assert tree["parents"][0]["uri"].startswith("gs://demo-bucket/v2/artifacts/images/")

    again = deploy(command, "--set", "train.learning_rate=0.25", "--set", "job=walk")
    assert monitor(command, again, "--follow")[0] == 0
    assert states(command, again)["prepare-data"] == "cached"
    assert states(command, again)["keep"] == "succeeded"
    (metric,) = json.loads(command("compare", run, again, "--json")[1])["metrics"]
    assert metric["change"] == pytest.approx(1 / 0.25 - 1 / 0.5)
    assert json.loads(monitor(command, "latest", "--json")[1])["id"] == again


def test_sampling_takes_a_registered_model_into_the_pipeline_root(cluster, command, tmp_path):
    """KFP's launcher refuses an artifact that is pointed at the registry."""
    run = deploy(command, "--set", "train.learning_rate=0.5", "--set", "job=source")
    assert monitor(command, run, "--follow")[0] == 0
    (tmp_path / "look.yaml").write_text(
        "job: look\ndescription: Samples\nmodality: images\nkind: sampling\nsource: {model: source}\n"
        "data: {source: digits}\n"
    )
    code, out, err = command("deploy", "look.yaml", "--json")
    assert code == 0, err
    look = json.loads(out)["run"]
    code, _, err = monitor(command, look, "--follow")
    assert code == 0, err
    assert states(command, look)["import-model"] == "succeeded"


@pytest.mark.parametrize("front_end", [False, True])
def test_logs_are_those_of_the_step_through_either_address(cluster, command, monkeypatch, front_end):
    monkeypatch.setattr(cluster.server, "front_end", front_end)
    run = deploy(command, "--set", f"train.learning_rate=0.7{front_end:d}")
    code, out, _ = monitor(command, run, "--logs", "--follow")
    assert code == 0
    assert "--- train\n" in out
    code, brief, _ = monitor(command, run, "--logs", "--step", "train")
    assert code == 0
    assert "KFP Executor" not in brief
    whole = monitor(command, run, "--full", "--step", "train")[1]
    assert len(whole) > len(brief)
    code, _, err = monitor(command, run, "--logs", "--step", "keep")
    assert (code, err.strip()) == (2, "error: step keep: is skipped and has no pod, so no log")
    monkeypatch.setattr(cluster.server, "archived", True)
    code, _, err = monitor(command, run, "--logs", "--step", "train")
    assert (code, "its log is gone, as Kubernetes has removed the pod" in err) == (2, True)


def test_failed_step_says_why_and_retry_goes_on_from_it_in_the_same_run(cluster, command):
    cluster.server.fail("sample")
    run = deploy(command, "--set", "train.learning_rate=0.6", "--set", "job=again")
    code, _, err = monitor(command, run, "--follow")
    assert code == 1
    assert "error: step sample failed: " in err
    assert f"textdiffusion retry {run}" in err
    code, out, err = command("retry", run, "--follow", "--interval", "0.1")
    assert code == 0, err
    assert f"run: {run}\n" in out
    assert states(command, run)["train"] == "succeeded"
    assert states(command, run)["register"] == "succeeded"
    code, _, err = command("retry", run)
    assert (code, err.strip()) == (
        2,
        f"error: run {run}: is succeeded; only a failed or cancelled run is started again",
    )


def test_attempts_of_a_step_that_is_retried_by_itself_have_their_logs(cluster, command):
    cluster.server.fail("sample")
    run = deploy(command, "--step", "sample.retries=1", "--set", "train.learning_rate=0.61")
    assert monitor(command, run, "--follow")[0] == 0
    pods = [pod for pod in cluster.server.executions[cluster.run(run).run_id].workflow.logs if "-retry-" in pod]
    assert len(pods) == 2
    code, out, err = monitor(command, run, "--full", "--step", "sample")
    assert code == 0, err
    assert out.count("Got executor_input") == 2


def test_cancelled_run_ends_and_may_not_be_cancelled_again(cluster, command):
    run = deploy(command, "--set", "train.learning_rate=0.62")
    assert command("cancel", run)[0] == 0
    code, _, err = monitor(command, run, "--follow")
    assert (code, err) == (130, "")
    code, _, err = command("cancel", run)
    assert (code, err.strip()) == (2, f"error: run {run}: is cancelled; only a run that goes on is cancelled")


@pytest.mark.parametrize("arguments", [("monitor",), ("cancel",), ("retry",), ("monitor", "--logs")])
def test_unknown_run_is_one_line(cluster, command, arguments):
    code, _, err = command(*arguments, "no-such-run")
    assert code == 2
    assert err.startswith("error: run no-such-run: there is none on http")
    assert err.count("\n") == 1


def test_doctor_asks_the_installation(cluster, command, monkeypatch):
    rows = {row["check"]: row for row in json.loads(command("doctor", "--cloud", "--json")[1])}
    assert rows["Kubeflow Pipelines"]["state"] == rows["registry"]["state"] == "ok"
    assert (rows["ML Metadata"]["state"], "svc/ml-pipeline-ui" in rows["ML Metadata"]["mend"]) == ("optional", True)
    monkeypatch.setattr(cluster.server, "version", "2.0.1")
    monkeypatch.setattr(cluster.server, "multi_user", True)
    rows = {row["check"]: row for row in json.loads(command("doctor", "--cloud", "--json")[1])}
    assert rows["Kubeflow Pipelines"]["mend"] == "install version 2.3 or newer"
    assert rows["kubeflow_namespace"]["state"] == "missing"
    assert list(rows)[-1] == "kubeflow_namespace", "what follows from it is not said"
    monkeypatch.setattr(cluster.server, "token", "secret")
    monkeypatch.setattr(cluster.server, "login", 302)
    rows = {row["check"]: row for row in json.loads(command("doctor", "--cloud", "--json")[1])}
    assert "login page" in rows["Kubeflow Pipelines"]["found"]
    assert rows["Kubeflow Pipelines"]["mend"].startswith("export TEXTDIFFUSION_KUBEFLOW_TOKEN=")


def test_both_services_may_be_configured_and_one_is_chosen(cluster, command, monkeypatch):
    for name, value in (("PROJECT", "demo"), ("REGION", "us-central1"), ("BUCKET", "demo-bucket")):
        monkeypatch.setenv(f"TEXTDIFFUSION_{name}", value)
    code, _, err = command("schedule", "list")
    assert (code, "service is not set, and both project and kubeflow_host are" in err) == (2, True)
    monkeypatch.setenv("TEXTDIFFUSION_SERVICE", "kubeflow")
    assert command("schedule", "list", "--json")[0] == 0


def test_iterations_of_a_loop_and_steps_without_nodes_have_their_states():
    from types import SimpleNamespace as Node

    began = datetime(2026, 11, 1, tzinfo=UTC)
    never = datetime(1, 1, 1, tzinfo=UTC)

    def node(name, state, seconds=60.0):
        end = never if state == "RUNNING" else began + timedelta(seconds=seconds)
        child = Node(pod_name=f"wf-{abs(hash((name, state, seconds))) % 1000}")
        return Node(display_name=name, state=state, start_time=began, end_time=end, child_tasks=[child])

    leaf = {"componentRef": {"name": "comp-trial"}}
    spec = {
        "pipelineInfo": {"name": "images"},
        "root": {"dag": {"tasks": {"loop": {"componentRef": {"name": "comp-loop"}},
                                   "train": {**leaf, "dependentTasks": ["loop"]}, "gate": leaf}}},
        "components": {"comp-trial": {"executorLabel": "e"}, "comp-loop": {"dag": {"tasks": {"trial": leaf}}}},
    }  # fmt: skip
    nodes = [node("loop", "RUNNING"), node("trial", "SUCCEEDED"), node("trial", "FAILED", 90), node("train", "PENDING"),
             node("gate-driver", "FAILED")]  # fmt: skip
    run = Node(
        display_name="toy-20261101-000000-abcd", run_id="1", state="RUNNING", created_at=began, finished_at=never,
        error=None, pipeline_spec=spec, runtime_config=None, run_details=Node(task_details=nodes),
    )  # fmt: skip
    shown = view(run)
    assert shown.job == "toy"
    assert {step.name: step.state for step in shown.root.all()} == {
        run.display_name: "running", "loop": "running", "trial": "failed", "trial-1": "succeeded", "trial-2": "failed",
        "train": "pending", "gate": "failed",
    }  # fmt: skip
    assert shown.step("gate").error.startswith("its driver failed")
