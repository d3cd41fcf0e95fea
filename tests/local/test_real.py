"""The pipeline with real steps and a few hundred examples: digits from data to a decision, and text if it is there."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from factory.registry import Registry
from factory.run_folder import find_run
from tests.local.conftest import STAND_IN, Project, make_project

TINY = """
job: few-digits
description: A few steps on a few digits
modality: images
data: {source: digits, limit: 300}
model: {network: {channels: [8, 16], blocks: [0, 1], head_channels: 8, embedding: 16}}
train: {examples: 640, batch_size: 64, warmup_examples: 64}
sample: {count: 60, steps: 4, batch_size: 60}
evaluate: {count: 60, judge_epochs: 2}
gate: {metric: frechet_distance, better: lower, first_floors: 0}
resources: {train: cpu, sample: cpu}
"""


class RealProject(Project):
    """A project whose steps are the real ones."""

    def environment(self) -> dict[str, str]:
        found = super().environment()
        path = found["PYTHONPATH"].replace(str(STAND_IN), "").lstrip(":")
        return {**found, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def test_digits_go_from_data_to_a_registered_model_and_back_to_a_picture(tmp_path: Path) -> None:
    made = make_project(tmp_path)
    project = RealProject(made.folder)
    (tmp_path / "few.yaml").write_text(TINY)
    called = project.call("run", "few.yaml")
    assert called.returncode == 0, called.stderr
    assert "frechet_distance" in called.stdout
    assert "report: runs/images/" in called.stdout
    run = find_run(tmp_path / "runs", "latest")
    assert run.status == "succeeded"

    with np.load(run.folder / "steps/sample/samples.npz") as samples:
        assert samples["images"].shape[0] == samples["labels"].shape[0] == 60
        assert samples["images"].dtype == np.uint8
    for name, entry in run.metrics().items():
        assert math.isfinite(entry["value"]), name
        assert {"floor", "n", "judge"} <= set(entry), name
    assert (run.folder / "report.html").stat().st_size > 10_000

    version = Registry(tmp_path / "registry").champion("few-digits")
    assert version is not None
    version.verify()
    assert version.lineage["run"] == run.id
    card = (run.folder / "steps/register/card.md").read_text()
    assert card.startswith("# few-digits version 1\n\nChampion: first model")
    assert {name for name in run.metrics() if f"| {name} | " in card} == set(run.metrics())
    for key in ("data_hash", "code_version", "image", "config", "run"):
        assert f"- {key}: {json.dumps(version.lineage[key])}" in card

    drawn = project.here("generate", "--model", "few-digits", "--class", "7", "--steps", "4", "--out", "seven.png")
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "seven.png").read_bytes().startswith(b"\x89PNG")

    again = project.here("run", "few.yaml")
    assert again.returncode == 0, again.stderr
    states = {step["name"]: step["state"] for step in find_run(tmp_path / "runs", "latest").steps}
    assert states["keep"] == "succeeded"  # the same weights are no better
    assert {state for name, state in states.items() if name not in ("gate", "register", "keep")} == {"cached"}

    (tmp_path / "draw.yaml").write_text(
        "{job: draw, description: d, modality: images, kind: sampling, source: {model: few-digits},"
        " data: {source: digits, limit: 300}, sample: {count: 20, steps: 2},"
        " evaluate: {count: 60, judge_epochs: 2}, resources: {train: cpu, sample: cpu}}"
    )
    sampled = project.here("run", "draw.yaml")
    assert sampled.returncode == 0, sampled.stderr
    last = find_run(tmp_path / "runs", "latest")
    assert last.facts["pipeline"] == "image-sampling"
    assert last.step("train-judge")["state"] == "cached"  # the judge of the training run
    assert last.artifacts()["model"]["metadata"]["version"] == version.version


def test_a_search_finds_the_learning_rate_that_learns_and_its_model_passes_the_gate(tmp_path: Path) -> None:
    planted = "search: {parameters: {train.learning_rate: {values: [1.0e-6, 3.0e-3, 9]}}, trials: 3, examples: 512}\n"
    project = RealProject(make_project(tmp_path).folder)
    (tmp_path / "few.yaml").write_text(TINY + planted)
    called = project.here("run", "few.yaml", "--search")
    assert called.returncode == 0, called.stderr
    run = find_run(tmp_path / "runs", "latest")
    search = json.loads((run.folder / "steps/choose/search.json").read_text())
    assert search["settings"] == {"train.learning_rate": 0.003}
    values = {trial["parameters"]["train.learning_rate"]: trial["value"] for trial in search["trials"]}
    assert values[0.003] < 0.9 * values[1e-6]
    assert run.facts["gate"]["decision"] == "promote"
    version = Registry(tmp_path / "registry").champion("few-digits")
    assert version is not None
    assert json.loads(version.lineage["config"])["train"]["learning_rate"] == 0.003
    logs = [run.folder / "steps" / f"trial-{number}" / "train_log.jsonl" for number in (1, 2, 3)]
    assert sum(log.exists() for log in logs) >= 2  # the one at 9 may diverge
    assert "validation_loss over train.learning_rate" in (run.folder / "report.html").read_text()
