"""Finished runs told to trackers that people already look at: MLflow and Weights & Biases, by their own clients.

Each run becomes one run there, under its own id, so that telling it again makes no second one: its settings, code,
image, the curves of its training by examples seen, every metric with its floor and count, what gate and registry
decided, and samples. None of the clients is needed for anything else; they are imported where they are asked for.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import jsontext, storage
from core.errors import UserError
from core.metrics import finite
from core.records import or_none
from factory.registry import Registry
from factory.run_folder import Run

PROJECT = "textdiffusion"  # the experiment or project, unless the tracker's own variable names one
MARK = "textdiffusion.run"  # the tag of a run there that says which one it is
BATCH = 1000  # points in a request, MLflow's limit
LONGEST = 500  # characters of a setting
PICTURES = ("grid.png", "report.html", "metrics.json", "samples.jsonl")


@dataclass(frozen=True)
class Told:
    """What is told of a run."""

    id: str
    job: str
    status: str
    settings: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    curves: list[tuple[int, dict[str, float]]] = field(repr=False)
    files: list[Path] = field(repr=False)


def told(run: Run, registry: str) -> Told:
    """What a finished run has to tell; what it lacks is left out. `registry` knows what became of its model since."""
    facts, gate, artifacts = run.facts, run.facts.get("gate") or {}, run.artifacts()
    tags = {key: facts.get(key) for key in ("pipeline", "runner", "code_version", "image", "config_hash", "created")}
    tags |= {"gate": gate.get("decision"), "gate_reason": gate.get("reason"), MARK: run.id}
    tags |= _registered(artifacts, registry)
    metrics: dict[str, float] = {}
    for name, entry in run.metrics().items():
        for key, label in (("value", name), ("floor", f"{name}.floor"), ("n", f"{name}.n"), ("se", f"{name}.se")):
            if (number := finite(entry.get(key))) is not None:
                metrics[label] = number
    curves = [row for part in ("model", "autoregressive") for row in _curves(artifacts, part)]
    places = [run.folder, *(artifacts[part]["path"] for part in ("samples",) if artifacts.get(part, {}).get("path"))]
    files = [place / name for place in places for name in PICTURES if (place / name).is_file()]
    return Told(
        id=run.id,
        job=str(facts.get("job")),
        status=run.status,
        settings=dict(_flat(facts.get("config") or {})),
        tags={key: str(value)[:LONGEST] for key, value in tags.items() if value},
        metrics=metrics,
        curves=curves,
        files=files,
    )


def _registered(artifacts: Mapping[str, Any], registry: str) -> dict[str, str]:
    """The version that the run's model became, and what the registry's history says of it."""
    place: Path | None = artifacts.get("registered", {}).get("path")
    if not place or not (place / "version.json").is_file():
        return {}
    version = storage.read_json(place / "version.json")
    model, number = str(version.get("model")), version.get("version")
    lines = or_none(lambda: Registry(registry).history(model)) or []
    events = [
        f"{line['created'][:19]} {line['event']}: {line['reason']}" for line in lines if line.get("version") == number
    ]
    return {"registered": f"{model}@{number}", "history": "; ".join(events)}


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        elif item is not None:
            yield f"{prefix}{key}", str(item)[:LONGEST]


def _curves(artifacts: Mapping[str, Any], part: str) -> Iterator[tuple[int, dict[str, float]]]:
    """(examples seen, values by name) of each row of a training's log."""
    place: Path | None = artifacts.get(part, {}).get("path")
    if not place or not (place / "train_log.jsonl").is_file():
        return
    lead = "train" if part == "model" else part
    for row in jsontext.parse_lines((place / "train_log.jsonl").read_bytes(), "train_log.jsonl", odd=lambda _: None):
        checked = row.get("validation") or {}
        values = {f"{lead}/{key}": finite(row.get(key)) for key in ("loss", "lr", "grad_norm", "rate")}
        values |= {f"{lead}/validation/{_plain(key)}": finite(value) for key, value in checked.items()}
        known = {key: value for key, value in values.items() if value is not None}
        if known and isinstance(row.get("examples"), int):
            yield row["examples"], known


def _plain(name: str) -> str:
    """A name of a curve without what MLflow allows in none."""
    return name.replace("=", " ")


def to_mlflow(run: Told) -> str:
    """Tells MLflow, at MLFLOW_TRACKING_URI; the run's address there."""
    mlflow = _client("mlflow", "mlflow-skinny")
    from mlflow.entities import Metric, Param, RunTag

    client = mlflow.MlflowClient()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    experiment = client.get_experiment_by_name(name)
    number = experiment.experiment_id if experiment else client.create_experiment(name)
    for old in client.search_runs([number], f"tags.`{MARK}` = '{run.id}'"):
        client.delete_run(old.info.run_id)
    created = client.create_run(number, run_name=run.id, tags=run.tags).info.run_id
    params = [Param(key, value) for key, value in run.settings.items()]
    points = [Metric(key, value, 0, step) for step, values in run.curves for key, value in values.items()]
    points += [Metric(key, value, 0, 0) for key, value in run.metrics.items()]
    for at in range(0, len(params), 100):
        client.log_batch(created, params=params[at : at + 100])
    for at in range(0, len(points), BATCH):
        client.log_batch(created, metrics=points[at : at + BATCH])
    client.log_batch(created, tags=[RunTag("job", run.job)])
    for file in run.files:
        client.log_artifact(created, str(file))
    client.set_terminated(created, "FINISHED" if run.status == "succeeded" else "FAILED")
    return f"{mlflow.get_tracking_uri()}, experiment {name}, run {created}"


def to_wandb(run: Told) -> str:
    """Tells Weights & Biases; the run's address, or with WANDB_MODE=offline a folder here, for `wandb sync`."""
    wandb = _client("wandb", "wandb")
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    made = wandb.init(
        project=project, id=run.id, name=run.id, group=run.job, job_type=run.tags.get("pipeline"), resume="allow",
        config={**run.settings, **run.tags}, settings=wandb.Settings(silent=True, console="off", disable_git=True),
    )  # fmt: skip
    made.define_metric("examples")
    made.define_metric("*", step_metric="examples")
    for step, values in run.curves:
        made.log({"examples": step, **values})
    for key, value in run.metrics.items():
        made.summary[key] = value
    for file in run.files:
        if file.suffix == ".png":
            made.log({file.stem: wandb.Image(str(file))})
        elif file.suffix == ".html":
            made.log({file.stem: wandb.Html(file.read_text("utf-8"), inject=False)})
    place = made.url or made.dir
    made.finish(exit_code=0 if run.status == "succeeded" else 1)
    return str(place)


TRACKERS: dict[str, Callable[[Told], str]] = {"mlflow": to_mlflow, "wandb": to_wandb}


def tell(run: Run, tracker: str, registry: str) -> str:
    """Tells a tracker of a run; where it is to be seen there.

    Raises:
        UserError: the run has not ended, the client is not installed, or the tracker refuses.
    """
    if run.status == "running":
        raise UserError(f"run {run.id}: has not ended; trackers are told of finished runs")
    with _one_line(tracker):
        return TRACKERS[tracker](told(run, registry))


def tell_all(run: Run, trackers: tuple[str, ...], registry: str) -> None:
    """Tells the trackers of the settings; one that cannot be told costs a warning, and the run nothing."""
    for tracker in trackers:
        try:
            tell(run, tracker, registry)
        except UserError as error:
            again = f"textdiffusion track {run.id} --to {tracker}"
            logging.getLogger(__name__).warning("%s; tell it again: %s", error, again)


def _client(module: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UserError(f"{module} is not installed: pip install {package}") from None


@contextlib.contextmanager
def _one_line(tracker: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each client raises its own kinds, and those of its HTTP library
        raise UserError(f"{tracker}: {' '.join(str(error).split())[:300] or type(error).__name__}") from None
