"""Hyper-parameter tuning jobs of Vertex AI: the study they search, one of their trials, and what they found."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.vertex_registry import ENDPOINT, client
from core import storage
from core.config import canonical_json, parse_override, validate
from core.errors import UserError
from core.printable import printable_json, say
from core.processes.accelerators import require_gpus
from core.requests import modality_name
from core.storage import scratches
from factory.lineage import describe, restore_ints
from factory.search import SearchConfig, choose, counted, make_trial
from factory.trial import TrialRequest, open_metric_file, report_metric, run_trial

SCALES = {"linear": "UNIT_LINEAR_SCALE", "log": "UNIT_LOG_SCALE"}


def study_metrics(search: Mapping[str, Any]) -> list[dict[str, str]]:
    """`StudySpec.metrics` of a `search` section."""
    config = validate(SearchConfig, search, "search")
    return [{"metric_id": config.metric, "goal": "MINIMIZE" if config.better == "lower" else "MAXIMIZE"}]


def study_parameters(search: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`StudySpec.parameters` of a `search` section; a parameter's id is the setting without `train.`."""
    config = validate(SearchConfig, search, "search")
    parameters: list[dict[str, Any]] = []
    for name, parameter in config.parameters.items():
        made: dict[str, Any] = {"parameter_id": name.removeprefix("train.")}
        if parameter.values is None:
            kind, number = ("integer_value_spec", round) if counted(name) else ("double_value_spec", float)
            made[kind] = {"min_value": number(parameter.min or 0), "max_value": number(parameter.max or 0)}
            made["scale_type"] = SCALES[parameter.scale]
        elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in parameter.values):
            made["discrete_value_spec"] = {"values": sorted(float(value) for value in parameter.values)}
            made["scale_type"] = SCALES[parameter.scale]
        else:
            made["categorical_value_spec"] = {"values": [str(value) for value in parameter.values]}
        parameters.append(made)
    return parameters


def tuned_trial(uri: str, arguments: Sequence[str]) -> None:
    """One trial, in the container that the tuning job starts: reads the request, trains, reports the metric.

    Args:
        uri: of request.json.
        arguments: `--SETTING=VALUE`, as the service appends them.

    Raises:
        UserError: the training refused its settings; the service counts the trial as failed.
    """
    from kfp.dsl import Artifact

    open_metric_file()
    require_gpus()
    request = storage.read_json(uri)
    suggestion: dict[str, Any] = {}
    for argument in arguments:
        (name,), value = parse_override(argument.removeprefix("--"))
        suggestion[f"train.{name}"] = restore_ints(value)
    number = int(os.environ.get("CLOUD_ML_TRIAL_ID", "1"))
    trial = make_trial(validate(SearchConfig, request["search"], "search"), request["train"], number, suggestion)
    inputs = {name: Path(Artifact(name=name, uri=place).path) for name, place in request["inputs"].items()}
    start = inputs.get("autoregressive")
    limit = threading.Timer(request["timeout_seconds"], os.kill, (os.getpid(), signal.SIGTERM))
    limit.daemon = True
    limit.start()
    with scratches.temporary_folder("tuned") as folder:
        facts = run_trial(
            TrialRequest(
                modality=modality_name(request["modality"]),
                model=request["model"],
                trial=trial,
                dataset=inputs["dataset"],
                out=folder / "trial",
                work=request["work"] or None,
                warm_start=start if request["warm_start"] else None,
                sample=request["sample"] or {},
                evaluate=request["evaluate"] or {},
                judge=inputs.get("judge"),
                autoregressive=start,
            )
        )
    limit.cancel()
    say(printable_json(json.dumps(facts)), lines=True)
    if facts["value"] is None:
        raise UserError(f"trial {canonical_json(suggestion)}: {facts['error']}")
    report_metric(trial["metric"], facts["value"], facts.get("examples_seen", 0))


def trials_of(gcp_resources: str, search: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trials of the tuning job that a launcher's `gcp_resources` names, as `factory.search.choose` takes them."""
    config = validate(SearchConfig, restore_ints(search), "search")
    named = re.search(r"/v1/(projects/[^/]+/locations/([^/]+)/hyperparameterTuningJobs/\d+)", gcp_resources)
    if not named:
        raise UserError(f"gcp_resources: names no hyper-parameter tuning job: {gcp_resources[:200]}")
    job = client(named[2], os.environ.get(ENDPOINT, ""), "Job").get_hyperparameter_tuning_job(name=named[1])
    trials = []
    for trial in job.trials:
        values = {item.parameter_id: restore_ints(item.value) for item in trial.parameters}
        measured = {item.metric_id: float(item.value) for item in trial.final_measurement.metrics}
        value = measured.get(config.metric) if trial.state.name == "SUCCEEDED" else None
        seconds = (trial.end_time - trial.start_time).total_seconds() if trial.start_time and trial.end_time else None
        trials.append(
            {
                "trial": int(trial.id),
                "parameters": {name: values[name.removeprefix("train.")] for name in config.parameters},
                "value": value,
                "error": None if value is not None else trial.infeasible_reason or f"state {trial.state.name}",
                "seconds": seconds,
            }
        )
    return trials


def publish_search(
    search_config: Mapping[str, Any],
    train_config: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]],
    search: Any,
    table: Any,
) -> dict[str, Any]:
    """Writes search.json into the artifact `search`, and a table for consoles; the winner's `train` section."""
    chosen = choose(restore_ints(search_config), restore_ints(train_config), trials)
    storage.write_json(Path(search.path) / "search.json", chosen)
    facts = {key: chosen[key] for key in ("metric", "best", "value", "settings")}
    describe(search, {**facts, "trial_count": len(trials)}, {"search": search_config, "train": train_config})
    rows = "".join(
        f"| {one['trial']}{' (best)' if one['trial'] == chosen['best'] else ''} | {canonical_json(one['parameters'])} |"
        f" {one['error'] if one['value'] is None else format(one['value'], '.6g')} |\n"
        for one in chosen["trials"]
    )
    head = f"# {len(trials)} trials\n\n| trial | settings | {chosen['metric']} |\n|---|---|---|\n"
    storage.write_bytes(Path(table.path), (head + rows).encode())
    describe(table, {}, {})
    say(f"best: trial {chosen['best']}, {chosen['metric']} {chosen['value']:.6g}, {chosen['settings']}")
    return dict(chosen["train"])
