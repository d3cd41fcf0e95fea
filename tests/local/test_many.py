"""Very many samples as steps that share them: each exactly once, and a step that is killed goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core import storage
from factory.run_folder import Run
from factory.shards import read_manifest
from tests.local.conftest import Project, make_project

States = Callable[[Run], dict[str, str]]
JOB = """
job: many
description: Samples in shards
modality: images
kind: sampling
source: {model: tiny}
data: {source: digits, limit: 200}
sample: {count: 40, steps: 4}
evaluate: {count: 40}
many: {count: 23, size: 5, workers: 3, parallel: 2}
resources: {train: cpu, sample: cpu}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a registered model and a job that draws from it."""
    project = make_project(tmp_path_factory.mktemp("many"))
    project.run()
    (project.folder / "many.yaml").write_text(JOB)
    return project


def drawn(project: Project) -> dict[int, int]:
    """How often each shard was begun, by its first sample."""
    logs = (project.folder / "runs" / ".work").glob("draw-*")
    return {int(log.name[5:]): len(log.read_text().splitlines()) for log in logs}


def test_a_killed_step_draws_what_is_missing_and_no_sample_twice(project: Project, states: States) -> None:
    killed = project.here("run", "many.yaml", "--set", "sample.seed=13")
    assert killed.returncode == 1
    assert "ended by SIGKILL" in killed.stderr
    assert "failed" in states(project.latest()).values()
    again = project.here("run", "many.yaml", "--resume")
    assert again.returncode == 0, again.stderr
    run = project.latest()
    assert [name for name in states(run) if name.startswith("draw")] == [f"draw-shards-{n}" for n in (1, 2, 3)]
    assert set(states(run).values()) <= {"succeeded", "cached"}
    assert drawn(project) == {0: 1, 5: 1, 10: 2, 15: 1, 20: 1}
    out = run.facts["many"]["out"]
    assert run.facts["many"] == {"out": out, "count": 23, "shards": 5}
    assert Path(out).parent == project.folder / "runs" / ".work"
    files = [shard["file"] for shard in read_manifest(out)["shards"]]
    assert b"".join(storage.read_bytes(f"{out}/shards/{name}") for name in files).split() == [
        str(number).encode() for number in range(23)
    ]
    whole = storage.read_json(run.folder / "steps" / "collect-shards" / "manifest.json")
    assert whole == {"out": out, **read_manifest(out)}
    assert json.loads((run.folder / "metrics.json").read_text())["frechet_distance"]["n"] == 40


def test_the_same_again_draws_nothing_and_a_place_of_ones_own_is_taken(project: Project) -> None:
    before = drawn(project)
    assert project.here("run", "many.yaml", "--set", "sample.seed=13").returncode == 0
    assert drawn(project) == before
    assert project.here("run", "many.yaml", "--set", "many.out=shards", "--set", "many.workers=1").returncode == 0
    assert project.latest().facts["many"]["out"] == str(project.folder / "shards")
    assert len(read_manifest(str(project.folder / "shards"))["shards"]) == 5
    other = project.here("run", "many.yaml", "--set", "many.out=shards", "--set", "many.count=22")
    assert other.returncode == 2
    assert "holds another plan (count differ)" in other.stderr


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("many.workers=9", "workers is 9, but 23 samples are 5 shards of 5"),
        ("sample.redraw=0.1", "sample.redraw: a sample in a shard (many) depends on its number alone"),
        ("many.size=0", "many.size"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_anything_runs(project: Project, setting: str, message: str) -> None:
    refused = project.here("run", "many.yaml", "--set", setting)
    assert refused.returncode == 2
    assert message in refused.stderr
