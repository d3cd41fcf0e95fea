"""Hyper-parameter search: what is tried, what is refused, which trial wins."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import qmc

from core.config import with_overrides
from core.errors import UserError
from factory.job import parse_job
from factory.search import choose, require_trials, suggest
from factory.trial import METRIC_FILE, TrialRequest, report_metric, run_trial
from pipelines.jobs import load_job
from tests.core.asked import Steps

JOB: dict[str, Any] = {
    "job": "searched", "description": "d", "modality": "images", "data": {}, "train": {"examples": 1000},
    "gate": {"metric": "frechet_distance"},
}  # fmt: skip
RATE = {"train.learning_rate": {"min": 1e-4, "max": 1e-1, "scale": "log"}}
TRAIN = {"examples": 1000, "learning_rate": 1e-3}


def search(**changes: Any) -> dict[str, Any]:
    return {"parameters": RATE, "examples": 100, **changes}


def tried(**changes: Any) -> list[dict[str, Any]]:
    return [trial["parameters"] for trial in suggest(search(**changes), TRAIN)]


def refusal(**changes: Any) -> str:
    with pytest.raises(UserError) as refused:
        job = parse_job({**JOB, "search": search(**changes)}, "job.yaml")
        require_trials(job.search, job.train, "job.yaml")  # type: ignore[union-attr, arg-type]
    return str(refused.value)


def test_suggestions_are_a_function_of_the_seed_and_a_longer_search_begins_as_a_shorter_one() -> None:
    assert tried(seed=3) == tried(seed=3)
    assert tried(seed=3) != tried(seed=4)
    assert tried(trials=16)[:8] == tried(trials=8)


def test_suggestions_fill_the_square_more_evenly_than_chance() -> None:
    parameters = {**RATE, "train.weight_decay": {"min": 0.0, "max": 0.1}}
    points = np.array([list(point.values()) for point in tried(parameters=parameters, trials=32)])
    assert points.min(axis=0)[0] >= 1e-4
    assert points.max(axis=0)[0] <= 1e-1
    unit = np.stack([(np.log10(points[:, 0]) + 4) / 3, points[:, 1] / 0.1], axis=1)
    chance = [qmc.discrepancy(np.random.default_rng(seed).random((32, 2))) for seed in range(20)]
    assert qmc.discrepancy(unit) < min(chance)


def test_a_counted_setting_is_tried_at_whole_numbers_each_once() -> None:
    values = [
        point["train.batch_size"] for point in tried(parameters={"train.batch_size": {"min": 3, "max": 7}}, trials=5)
    ]
    assert sorted(values) == [3, 4, 5, 6, 7]
    assert all(type(value) is int for value in values)


def test_lists_of_values_are_a_grid() -> None:
    grid = {"train.optimizer": {"values": ["adamw", "muon"]}, "train.batch_size": {"values": [16, 32, 64]}}
    points = tried(parameters=grid, trials=6)
    assert {tuple(point.values()) for point in points} == {(o, b) for o in ("adamw", "muon") for b in (16, 32, 64)}


def test_a_trial_is_the_jobs_training_with_the_suggestion_at_the_trials_budget() -> None:
    trial = suggest(search(), {**TRAIN, "batch_size": 7})[0]
    train = trial["train"]
    assert (train["examples"], train["batch_size"]) == (100, 7)
    assert train["learning_rate"] == trial["parameters"]["train.learning_rate"]
    minutes = suggest({"parameters": RATE, "minutes": 2}, TRAIN)[0]["train"]
    assert (minutes["minutes"], "examples" in minutes) == (2, False)


def test_settings_may_be_laid_over_a_parameter_on_the_command_line() -> None:
    texts = ["search.parameters.train.learning_rate.max=1", "search.trials=3", "search.minutes=0.1"]
    values = with_overrides({**JOB, "train": {"minutes": 5}, "search": search()}, texts)
    made = parse_job(values, "job.yaml").search  # type: ignore[union-attr]
    assert made is not None
    assert (made.parameters["train.learning_rate"].max, made.parameters["train.learning_rate"].min) == (1, 1e-4)
    assert (made.trials, made.minutes, made.examples) == (3, 0.1, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parameters": {"model.width": {"values": [1, 2]}}}, "parameters: model.width is no setting"),
        ({"parameters": {"train.seed": {"min": 0, "max": 9}}}, "train.seed is no setting of a training that can be"),
        ({"parameters": {"train.clip": {"min": 2, "max": 2}}}, "the range is empty: min 2 is not below max 2"),
        ({"parameters": {"train.clip": {"min": 0, "max": 2, "scale": "log"}}}, "log needs a min above 0"),
        ({"parameters": {"train.clip": {"min": 1}}}, "train.clip: give both min and max"),
        ({"parameters": {"train.clip": {"values": [1, 2], "max": 3}}}, "either min and max, or values"),
        ({"parameters": {"train.learning_rate": {"min": 1, "max": 100}}}, "train.learning_rate cannot be 100.0: In"),
        ({"parameters": {"train.decay": {"values": ["linear", "steps"]}}, "trials": 2}, "train.decay cannot be steps"),
        ({"parameters": {**RATE, "train.clip": {"min": 1, "max": 2}, "train.ema_std": {"min": 0.1, "max": 0.2}}},
         "search.parameters: Dictionary should have at most 2 items"),
        ({"parameters": {}}, "search.parameters: Dictionary should have at least 1 item"),
        ({"parameters": {"train.batch_size": {"values": [8, 16]}}}, "trials is 8, but the parameters have only 2"),
        ({"examples": 1000}, "a trial's examples (1000) are not below the training's (1000)"),
        ({"minutes": 1}, "set exactly one of examples and minutes"),
        ({"trails": 9}, "search.trails: there is no such key"),
    ],
)  # fmt: skip
def test_a_search_that_cannot_work_is_refused_in_one_line(changes: dict[str, Any], said: str) -> None:
    message = refusal(**changes)
    assert message.startswith("job.yaml: search")
    assert said in message
    assert "\n" not in message


def test_a_search_that_does_not_fit_stands_in_nobodys_way_until_it_is_asked_for() -> None:
    assert load_job("digits", ["train.examples=640"]).search is None  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"digits.yaml: search: a trial's examples \(20000\) are not below"):
        load_job("digits", ["train.examples=640"], search=True)


def trial(number: int, value: float | None, rate: float = 0.1, error: str | None = None) -> dict[str, Any]:
    return {"trial": number, "parameters": {"train.learning_rate": rate}, "value": value, "error": error}


def test_the_best_finished_trial_wins_and_the_first_of_equals() -> None:
    trials = [trial(3, 0.5, 0.03), trial(1, None, 0.01), trial(2, 0.5, 0.02), trial(4, 0.9, 0.04)]
    found = choose(search(), TRAIN, trials)
    assert (found["best"], found["settings"]) == (2, {"train.learning_rate": 0.02})
    assert (found["train"]["learning_rate"], found["train"]["examples"]) == (0.02, 1000)
    assert [one["trial"] for one in found["trials"]] == [1, 2, 3, 4]
    assert choose(search(better="higher"), TRAIN, trials)["best"] == 4


def test_a_search_in_which_nothing_finished_says_why() -> None:
    with pytest.raises(UserError, match=r"none of 2 trials came to its end; the first: diverged"):
        choose(search(), TRAIN, [trial(1, None, error="diverged"), trial(2, None, error="also")])


def test_a_diverging_trial_is_a_result_and_a_missing_metric_is_an_error(tmp_path: Path) -> None:
    steps = Steps("images")
    steps.prepare_data({"source": "digits", "limit": 200}, tmp_path / "data")
    model = {"network": {"channels": [8, 16], "blocks": [0, 1], "head_channels": 8, "embedding": 16}}
    values = {"learning_rate": 9.0, "clip": 1e9, "batch_size": 16, "examples": 1024, "log_every": 1}
    one: dict[str, Any] = {"trial": 1, "parameters": {}, "train": values, "metric": "validation_loss"}
    dataset, work = tmp_path / "data", str(tmp_path / "work")
    diverging = TrialRequest(
        modality="images", model=model, trial=one, dataset=dataset, out=tmp_path / "diverged", work=work
    )
    facts = run_trial(diverging)
    assert facts["value"] is None
    assert "lower train.learning_rate" in facts["error"]
    assert json.loads((tmp_path / "diverged" / "trial.json").read_text()) == facts

    steps.train_judge({"judge_epochs": 1}, tmp_path / "data", tmp_path / "judge")
    one |= {"train": {"batch_size": 16, "examples": 32}, "metric": "no_such_metric"}
    with pytest.raises(UserError, match=r"search.metric: found 'no_such_metric'; allowed: validation_loss, .*frechet"):
        run_trial(
            TrialRequest(
                modality="images",
                model=model,
                trial=one,
                dataset=dataset,
                out=tmp_path / "out",
                work=work,
                sample={"count": 20, "steps": 2},
                evaluate={"count": 20, "judge_epochs": 1},
                judge=tmp_path / "judge",
            )
        )


def test_the_metric_file_is_what_the_tuning_service_reads(tmp_path: Path) -> None:
    file = tmp_path / "hypertune" / "output.metrics"
    file.parent.mkdir()
    report_metric("loss", 0.25, 5120, {METRIC_FILE: str(file), "CLOUD_ML_TRIAL_ID": "3"})
    line = json.loads(file.read_text())
    assert math.isclose(float(line.pop("timestamp")), file.stat().st_mtime, abs_tol=60)
    assert line == {"trial": "3", "loss": "0.25", "global_step": "5120", "checkpoint_path": ""}
