"""A search run for real by kfp.local: trials are steps, a killed one is taken up again, the winner meets the gate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core import storage
from factory.registry import Registry
from factory.run_folder import Run, list_runs
from tests.local.conftest import JOB, Project, make_project

States = Callable[[Run], dict[str, str]]
SEARCH = """
search:
  parameters: {train.learning_rate: {values: [1, 4, 7]}}
  trials: 3
  parallel: 2
  examples: 64
"""


def searching(folder: Path, search: str = SEARCH) -> Project:
    project = make_project(folder)
    (folder / "tiny.yaml").write_text(JOB + search)
    return project


def found(run: Run) -> dict[str, object]:
    return dict(storage.read_json(run.folder / "steps" / "choose" / "search.json"))


def the_search(project: Project) -> Run:
    return list_runs(project.folder / "runs")[0]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a finished search."""
    project = searching(tmp_path_factory.mktemp("searched"))
    called = project.here("run", "tiny.yaml", "--search")
    assert called.returncode == 0, called.stderr
    return project


def test_the_best_trial_is_trained_in_full_and_meets_the_gate(searched: Project, states: States) -> None:
    run = the_search(searched)
    assert run.facts["pipeline"] == "images-search"
    trials = [name for name in states(run) if name.startswith("trial-")]
    assert trials == [f"trial-{number}" for number in (1, 2, 3)]
    assert set(states(run).values()) == {"succeeded", "skipped"}
    search = found(run)
    values = {trial["parameters"]["train.learning_rate"]: trial["value"] for trial in search["trials"]}  # type: ignore
    assert values == {1: 1.0, 4: 0.25, 7: None}  # the one that diverged does not sink the search
    assert search["settings"] == {"train.learning_rate": 4}
    trained = json.loads(run.artifacts()["model"]["metadata"]["config"])["train"]
    assert (trained["learning_rate"], trained["examples"]) == (4, 512)
    version = Registry(searched.folder / "registry").champion("tiny")
    assert version is not None
    assert version.lineage["run"] == run.id


def test_a_trial_says_what_it_was_and_why_it_failed(searched: Project) -> None:
    run = the_search(searched)
    failed = next(trial for trial in found(run)["trials"] if trial["value"] is None)  # type: ignore[attr-defined]
    assert failed["error"] == "train: diverged: lower train.learning_rate"
    table = (run.folder / "steps/choose/table.md").read_text()
    assert f'| {failed["trial"]} | {{"train.learning_rate":7}} | train: diverged' in table
    assert "(best)" in table
    assert searched.json("show", run.id)["search"]["settings"] == {"train.learning_rate": 4}


def test_one_step_of_a_search_again_has_the_winners_settings(searched: Project) -> None:
    called = searched.call("run", "tiny.yaml", "--only", "train", "--from", the_search(searched).id)
    assert called.returncode == 0, called.stderr
    assert searched.latest().facts["config"]["train"]["learning_rate"] == 4


@pytest.mark.slow
def test_more_trials_begin_with_those_that_are_there(tmp_path: Path, states: States) -> None:
    search = "search: {parameters: {train.learning_rate: {min: 0.1, max: 4, scale: log}}, trials: 2, examples: 64}\n"
    project = searching(tmp_path, search)
    assert project.here("run", "tiny.yaml", "--search").returncode == 0
    assert project.here("run", "tiny.yaml", "--search", "--set", "search.trials=3").returncode == 0
    trials = {name: state for name, state in states(project.latest()).items() if name.startswith("trial-")}
    assert trials == {"trial-1": "cached", "trial-2": "cached", "trial-3": "succeeded"}


def test_a_trial_that_is_killed_is_tried_again_and_the_others_are_not(tmp_path: Path, states: States) -> None:
    project = searching(tmp_path)
    killed = project.here("run", "tiny.yaml", "--search", "--set", "train.clip=13")
    assert killed.returncode == 1
    assert "failed: ended by SIGKILL (out of memory, perhaps)" in killed.stderr
    assert "--resume" in killed.stderr
    before = states(project.latest())
    assert sorted(before[name] for name in before if name.startswith("trial-")) == ["failed", "succeeded", "succeeded"]
    again = project.here("run", "tiny.yaml", "--resume")
    assert again.returncode == 0, again.stderr
    after = states(project.latest())
    assert {name: after[name] for name, state in before.items() if state == "succeeded"} == {
        name: "cached" for name, state in before.items() if state == "succeeded"
    }
    assert found(project.latest())["settings"] == {"train.learning_rate": 4}


def test_an_interrupted_search_ends_all_its_trials_at_once(tmp_path: Path) -> None:
    project = searching(tmp_path)
    command = project.command("run", "tiny.yaml", "--search", "--set", "train.seed=99")
    process = subprocess.Popen(command, cwd=tmp_path, env=project.environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    begun: list[Path] = []
    while len([place for place in begun if place.read_text()]) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
        begun = list((tmp_path / "runs" / ".work").glob("*/begun"))
    states = {step["name"]: step["state"] for step in project.latest().steps}
    assert [name for name, state in states.items() if state == "running"] == ["trial-1", "trial-2"]
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 30  # each trial would sleep for a minute, and more of them wait
    assert "--resume" in errors
    ended = {step["name"]: step["state"] for step in project.latest().steps}
    assert ended["trial-3"] == "pending"
    for place in begun:
        with pytest.raises(ProcessLookupError):
            os.kill(int(place.read_text()), 0)


def test_a_job_without_the_section_says_what_to_write(tmp_path: Path) -> None:
    project = searching(tmp_path, "")
    called = project.here("run", "tiny.yaml", "--search")
    assert called.returncode == 2
    assert "--search needs a section `search` in a training job, for example search: {parameters:" in called.stderr
    assert not (tmp_path / "runs").exists()


def test_without_the_option_a_job_that_could_be_searched_is_trained_as_it_is(tmp_path: Path, states: States) -> None:
    run = searching(tmp_path).run()
    assert run.facts["pipeline"] == "images"
    assert "search" not in " ".join(states(run))
    assert run.facts["config"]["search"] is None
