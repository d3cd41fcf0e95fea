"""The compiled pipeline, run for real by kfp.local with steps that take no time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.storage import folders
from factory.run_folder import STORE, Run
from tests.local.conftest import REPOSITORY, Project, make_project

States = Callable[[Run], dict[str, str]]
WORK = ("prepare-data", "train-judge", "train", "sample", "evaluate")


def test_a_run_leaves_the_documented_tree(shared: Project, states: States) -> None:
    run = shared.latest()
    assert run.folder.parent == (shared.folder / "runs" / "images").resolve()
    assert states(run) == {**dict.fromkeys((*WORK, "gate", "register"), "succeeded"), "keep": "skipped"}
    for name in ("run.json", "metrics.json", "report.html", "pipeline.yaml"):
        assert (run.folder / name).is_file(), name
    for name in ("prepare-data/dataset.json", "train/model.json", "sample/sample.json", "gate/verdict.json"):
        assert (run.folder / "steps" / name).is_file(), name
    assert all((run.folder / "steps" / step / "log.txt").is_file() for step in WORK)
    facts = run.facts
    assert (facts["job"], facts["pipeline"], facts["status"]) == ("tiny", "images", "succeeded")
    assert facts["gate"]["decision"] == "promote"
    assert facts["seconds"] > 0


def test_the_gallery_shows_the_run_and_its_model_and_can_be_published(shared: Project, tmp_path: Path) -> None:
    run = shared.latest()
    page = (shared.folder / "runs" / "index.html").read_text(encoding="utf-8")
    address = run.folder.relative_to((shared.folder / "runs").resolve()).as_posix() + "/report.html"
    assert f'href="{address}"' in page
    assert "Champion tiny@1" in page
    called = shared.here("gallery", "--publish", str(tmp_path / "public"))
    assert called.returncode == 0, called.stderr
    assert (tmp_path / "public" / "index.html").read_text(encoding="utf-8") == page
    assert (tmp_path / "public" / address).is_file()


def test_every_artifact_carries_its_lineage(shared: Project) -> None:
    run = shared.latest()
    model = run.artifacts()["model"]["metadata"]
    assert json.loads(model["config"])["train"] == {
        key: value for key, value in run.facts["config"]["train"].items() if value is not None
    }
    assert model["data_hash"] == run.artifacts()["dataset"]["metadata"]["content_sha256"]
    assert model["image"] == run.facts["image"]
    assert model["code_version"] == run.facts["code_version"]
    assert (model["examples_seen"], model["device"]) == (512, "cpu")
    parents = json.loads(run.artifacts()["evaluation"]["metadata"]["parents"])
    assert set(parents) == {"dataset", "judge", "model", "samples"}
    assert parents["model"] == {"uri": run.artifacts()["model"]["uri"], "hash": model["weights_sha256"]}


def test_lineage_walks_from_a_sample_to_the_data(shared: Project) -> None:
    tree = shared.json("lineage", "latest/samples")
    assert [tree["artifact"], tree["parents"][0]["artifact"]] == ["samples", "model"]
    dataset = tree["parents"][0]["parents"][0]
    assert (dataset["artifact"], dataset["step"]) == ("dataset", "prepare-data")
    assert dataset["hash"] == tree["data_hash"]
    registered = shared.json("lineage", "tiny@1")
    assert registered["parents"][0]["hash"] == registered["hash"]


def test_an_unchanged_run_is_served_from_cache_and_keeps_the_champion(project: Project, states: States) -> None:
    first, second = project.run(), project.run()
    assert states(second) == {
        **dict.fromkeys(WORK, "cached"),
        "gate": "succeeded",
        "register": "skipped",
        "keep": "succeeded",
    }
    assert second.facts["gate"]["decision"] == "keep"
    for step in ("train/model.json", "evaluate/metrics.json"):
        assert (second.folder / "steps" / step).read_bytes() == (first.folder / "steps" / step).read_bytes()
    assert [entry["event"] for entry in project.json("models", "tiny")["history"]] == ["promote", "keep"]


def test_only_steps_whose_section_changed_run_again(project: Project, states: States) -> None:
    project.run()
    run = project.run("sample.steps=5")
    assert [name for name in WORK if states(run)[name] == "cached"] == ["prepare-data", "train-judge", "train"]


def test_a_better_model_is_promoted_and_a_worse_one_is_not(project: Project, states: States) -> None:
    project.run("train.learning_rate=0.01")
    worse = project.run("train.learning_rate=0.005")
    assert (states(worse)["register"], states(worse)["keep"]) == ("skipped", "succeeded")
    better = project.run("train.learning_rate=0.02")
    assert (states(better)["register"], states(better)["keep"]) == ("succeeded", "skipped")
    versions = project.json("models")
    assert [(row["version"], row["alias"]) for row in versions] == [(1, None), (2, "champion")]
    for command, champion in (("rollback", 1), ("promote", 2)):
        assert project.call(command, "tiny" if command == "rollback" else "tiny@2").returncode == 0
        assert f"Champion tiny@{champion}<" in (project.folder / "runs/index.html").read_text(encoding="utf-8")


def test_a_champion_of_another_evaluation_is_measured_again(project: Project) -> None:
    project.run("train.learning_rate=0.01", "sample.steps=2")
    verdict = project.run("train.learning_rate=0.01", "train.seed=5", "sample.steps=100").facts["gate"]
    # More steps alone would look like progress: 1/quality + 1/steps falls. Measured alike, the two are equal.
    assert verdict["champion"]["measured_again"]
    assert verdict["decision"] == "keep"
    assert verdict["challenger"]["metric"] == verdict["champion"]["metric"]


def test_a_metric_that_is_not_a_number_never_promotes(project: Project, states: States) -> None:
    run = project.run("evaluate.judge_seed=7")
    assert states(run)["keep"] == "succeeded"
    assert "not a finite number" in run.facts["gate"]["reason"]


def test_a_changed_line_of_core_is_not_served_from_cache(tmp_path: Path, states: States) -> None:
    code = tmp_path / "code"
    for name in (
        "core",
        "factory",
        "report",
        "components",
        "pipelines",
        "local",
        "serving",
        "textdiffusion",
        "containers",
    ):
        shutil.copytree(REPOSITORY / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "requirements.lock", code)
    project = make_project(tmp_path, settings="")
    project.code = code

    def run() -> Run:
        called = project.call("run", "tiny.yaml")
        assert called.returncode == 0, called.stderr
        return project.latest()

    first, second = run(), run()
    assert {states(second)[name] for name in WORK} == {"cached"}
    with (code / "core" / "noise.py").open("a") as stream:
        stream.write("\n# one more line\n")
    third = run()
    assert {states(third)[name] for name in WORK} == {"succeeded"}
    assert first.facts["image"] == second.facts["image"] != third.facts["image"]


def test_changed_data_is_not_served_from_cache(project: Project, states: States) -> None:
    data = project.folder / "data"
    data.mkdir()
    (data / "images.bin").write_bytes(b"one")
    project.run("data.source=mnist", "data.data_dir=data")
    assert states(project.run("data.source=mnist", "data.data_dir=data"))["prepare-data"] == "cached"
    (data / "images.bin").write_bytes(b"other")
    assert states(project.run("data.source=mnist", "data.data_dir=data"))["prepare-data"] == "succeeded"


def test_a_failing_step_prints_its_error_and_a_rerun_goes_on_from_the_last_good_step(
    project: Project, states: States
) -> None:
    failed = project.here("run", "tiny.yaml", "--set", "sample.seed=666")
    assert failed.returncode == 1
    assert "step sample failed: RuntimeError: a bug in sampling" in failed.stderr
    assert "steps/sample" in failed.stderr
    assert "Traceback" not in failed.stderr
    run = project.latest()
    assert (run.status, states(run)["sample"], states(run)["evaluate"]) == ("failed", "failed", "pending")
    assert "a bug in sampling" in (run.folder / "steps" / "sample" / "log.txt").read_text()
    mended = project.run("sample.seed=1")
    assert (states(mended)["train"], states(mended)["sample"]) == ("cached", "succeeded")


def test_bad_input_to_a_step_is_one_line_and_exit_code_2(project: Project) -> None:
    failed = project.here("run", "tiny.yaml", "--set", "data.limit=13")
    assert failed.returncode == 2
    assert (
        failed.stderr.splitlines()[0] == "error: step prepare-data failed: data.limit: found 13; allowed: lucky numbers"
    )
    log = (project.latest().folder / "steps" / "prepare-data" / "log.txt").read_text()
    assert "Traceback" not in log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_resumed_as_the_same_run(
    project: Project, states: States, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        project.command("run", "tiny.yaml", "--set", "train.seed=99"),
        cwd=project.folder,
        env=project.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    _step_of(project)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "textdiffusion run tiny.yaml --resume" in errors
    run = project.latest()
    assert (run.status, states(run)["train"]) == ("failed", "failed")
    resumed = project.here("run", "tiny.yaml", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    again = project.latest()
    assert again.id == run.id
    assert (again.status, states(again)["prepare-data"]) == ("succeeded", "cached")
    assert again.artifacts()["model"]["metadata"]["resumed"] is True  # from what the killed step had left in `work`
    assert project.here("run", "tiny.yaml", "--resume").returncode == 2  # nothing is unfinished now


def test_a_run_that_was_killed_outright_is_no_longer_running_and_is_resumed(project: Project) -> None:
    process = subprocess.Popen(
        project.command("run", "tiny.yaml", "--set", "train.seed=98"),
        cwd=project.folder,
        env=project.environment(),
        stderr=subprocess.DEVNULL,
    )
    _step_of(project)
    assert project.latest().status == "running"
    process.kill()
    process.wait(60)
    killed = project.latest()
    assert (killed.status, killed.facts["interrupted"]) == ("failed", True)
    left = folders.draft(killed.folder.parents[1] / STORE / "tiny-1" / "prepare-data" / "dataset")
    left.mkdir(parents=True)  # as a killed step leaves it
    assert project.here("run", "tiny.yaml", "--resume").returncode == 0
    assert (project.latest().id, project.latest().status) == (killed.id, "succeeded")
    assert not left.exists()


def test_a_run_that_was_killed_outright_ends_its_step_too(project: Project) -> None:
    process = subprocess.Popen(
        project.command("run", "tiny.yaml", "--set", "train.seed=99"),
        cwd=project.folder,
        env=project.environment(),
        stderr=subprocess.DEVNULL,
    )
    step = _step_of(project)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30  # the step would sleep for a minute
    while time.monotonic() < deadline and Path(f"/proc/{step}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{step}").exists()


def test_a_killed_step_is_reported_by_its_signal(project: Project) -> None:
    process = subprocess.Popen(
        project.command("run", "tiny.yaml", "--set", "train.seed=99"),
        cwd=project.folder,
        env=project.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    step = _step_of(project)
    os.kill(step, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert "step train failed: ended by SIGKILL (out of memory, perhaps)" in errors


def _step_of(project: Project) -> int:
    """The process of the train step, once it has begun."""
    work = project.folder / "runs" / ".work"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for begun in work.glob("*/begun"):
            if begun.read_text():
                return int(begun.read_text())
        time.sleep(0.05)
    raise AssertionError("the train step did not begin")


def test_only_runs_one_step_on_an_earlier_runs_artifacts(project: Project, states: States) -> None:
    first = project.run()
    called = project.call("run", "tiny.yaml", "--only", "sample", "--from", first.id, "--set", "sample.steps=7")
    assert called.returncode == 0, called.stderr
    run = project.latest()
    assert states(run) == {"sample": "succeeded"}
    assert run.facts["parents"] == [first.id]
    assert json.loads((run.folder / "steps/sample/sample.json").read_text())["steps"] == 7
    bad = project.here("run", "tiny.yaml", "--only", "sampel", "--from", first.id)
    assert bad.returncode == 2
    assert "sample" in bad.stderr


def test_only_a_runs_own_files_are_given_to_one_step_of_it(project: Project, states: States) -> None:
    """Its record is somebody else's: it names a model elsewhere, and a pipeline whose folder would be."""
    first = project.run()
    elsewhere = project.folder / "elsewhere"
    elsewhere.mkdir()
    model = dict(first.step("train")["artifacts"])
    first.update("train", artifacts={**model, "model": {**model["model"], "uri": str(elsewhere)}})
    called = project.call("run", "tiny.yaml", "--only", "sample", "--from", first.id)
    assert called.returncode == 0, called.stderr
    assert states(project.latest()) == {"sample": "succeeded"}
    first.save(pipeline="../escaped")
    called = project.call("run", "tiny.yaml", "--only", "sample", "--from", first.id)
    assert (called.returncode, "refuses the name '../escaped'" in called.stderr) == (2, True)
    assert not (project.folder / "escaped").exists()


def test_debug_stops_in_pdb_where_the_error_is(project: Project) -> None:
    first = project.run()
    command = ("run", "tiny.yaml", "--only", "sample", "--from", first.id, "--set", "sample.seed=666", "--debug")
    called = subprocess.run(
        project.command(*command),
        cwd=project.folder,
        env=project.environment(),
        input="continue\np sample['seed']\nquit\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "(Pdb)" in called.stdout
    assert "666" in called.stdout
    assert called.returncode == 1
