"""One trial of a hyper-parameter search: a short training, measured by its validation loss or by its samples."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from core import storage
from core.config import Frozen
from core.errors import UserError
from core.evaluation import Evaluation
from core.metrics import Metrics
from core.modality import run
from core.requests import EvaluateRequest, Facts, ModalityName, SampleRequest, Section, TrainRequest
from core.storage import scratches
from core.storage.drives import fill
from core.storage.faults import as_storage_error
from factory.search import VALIDATION_LOSS

METRIC_FILE = "CLOUD_ML_HP_METRIC_FILE"
"""Where Vertex AI's tuning service reads a trial's metric; it sets the variable in the trial's container."""
USER = 10001  # of containers/Dockerfile


class TrialRequest(Frozen):
    """One trial of a search: what to train, on what, and how it is measured."""

    modality: ModalityName
    model: Section
    trial: Section = Field(description="what `factory.search.make_trial` returns")
    dataset: Path
    out: Path
    work: str | None = Field(None, description="as of a training: killed and run again, it goes on from there")
    warm_start: Path | None = Field(None, description="model folder that training begins from")
    sample: Section = Field(default_factory=dict)
    evaluate: Section = Field(default_factory=dict)
    judge: Path | None = Field(None, description="needed where the metric is one of metrics.json")
    autoregressive: Path | None = Field(None, description="for text: the autoregressive model's folder")


def run_trial(request: TrialRequest) -> dict[str, Any]:
    """Trains what the trial says, and measures it; trial.json and the training's log go into `request.out`.

    A training that refuses its settings (it diverged, it does not fit into memory) is a trial without a value and
    with an error. Anything else ends the step: a signal, a broken data set, a metric that is not there.

    Returns:
        What trial.json says.
    """
    trial = request.trial
    facts: dict[str, Any] = {"trial": trial["trial"], "parameters": trial["parameters"], "value": None, "error": None}
    began = time.monotonic()
    with scratches.temporary_folder("trial") as scratch, storage.atomic_folder(request.out, "trial.json") as folder:
        trained = scratch / "model"
        trained_facts, facts["error"] = _trained(request, trained)
        if trained_facts is not None:
            if (trained / "train_log.jsonl").exists():
                storage.write_bytes(folder / "train_log.jsonl", (trained / "train_log.jsonl").read_bytes())
            facts |= {key: trained_facts[key] for key in ("examples_seen", "device") if key in trained_facts}
            metric = str(trial["metric"])
            facts["value"] = (
                trained_facts[metric] if metric == VALIDATION_LOSS else _measured(request, trained, metric, scratch)
            )
            if facts["value"] is None:
                facts["error"] = f"{metric} is not a finite number"
        facts["seconds"] = round(time.monotonic() - began, 1)
        storage.write_json(folder / "trial.json", facts)
    return facts


def _trained(request: TrialRequest, out: Path) -> tuple[Facts | None, str | None]:
    """The training's facts, or why it has none."""
    import torch

    asked = TrainRequest(
        modality=request.modality,
        model=request.model,
        train=request.trial["train"],
        dataset=request.dataset,
        out=out,
        work=request.work,
        warm_start=request.warm_start,
    )
    try:
        return run(asked), None
    except UserError as error:
        if error.EXIT_CODE != UserError.EXIT_CODE:  # stopped by a signal
            raise
        return None, str(error)
    except torch.OutOfMemoryError as error:
        return None, f"out of memory: {' '.join(str(error).split())[:200]}"


def _measured(request: TrialRequest, model: Path, metric: str, scratch: Path) -> float | None:
    """The trained model's metric, by samples of it."""
    if request.judge is None:
        raise UserError(f"search.metric: {metric} needs a judge; allowed without one: {VALIDATION_LOSS}")
    modality, autoregressive = request.modality, request.autoregressive
    samples, out = scratch / "samples", scratch / "evaluation"
    run(
        SampleRequest(modality=modality, sample=request.sample, model=model, out=samples, autoregressive=autoregressive)
    )
    run(
        EvaluateRequest(
            modality=modality,
            evaluate=request.evaluate,
            dataset=request.dataset,
            judge=request.judge,
            model=model,
            samples=samples,
            out=out,
            autoregressive=autoregressive,
        )
    )
    return _metric(Evaluation.read(out).metrics, metric)


def _metric(metrics: Metrics, name: str) -> float | None:
    if name not in metrics:
        raise UserError(f"search.metric: found {name!r}; allowed: {VALIDATION_LOSS}, {', '.join(metrics)}")
    return metrics[name].value


def metric_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the tuning service reads a trial's metric."""
    return Path(environment.get(METRIC_FILE) or "/tmp/hypertune/output.metrics")


def open_metric_file(environment: Mapping[str, str] = os.environ) -> None:
    """Sees to it, before anything is trained, that this process can report a metric.

    The service makes the file's folder for root alone (github.com/GoogleCloudPlatform/cloudml-hypertune/issues/6). A
    trial that begins as root gives the file to the user that steps run as, and goes on as that user.

    Raises:
        UserError: the file cannot be written.
    """
    path = metric_file(environment)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
        if os.geteuid() == 0:
            os.chown(path, USER, USER)
            os.setgroups([])
            os.setgid(USER)
            os.setuid(USER)
            with path.open("ab"):
                pass
    except OSError as error:
        raise UserError(
            f"{path}: user {os.geteuid()} cannot write a trial's metric: {error.strerror}; Vertex AI makes this folder"
            " for root alone, so trials need the image whose tag ends in -trials (`make image`); nothing was trained"
        ) from None


def report_metric(name: str, value: float, examples: int, environment: Mapping[str, str] = os.environ) -> None:
    """Tells the tuning service of Vertex AI a trial's metric: the line that cloudml-hypertune writes, into the file
    that is there, because its folder may be closed.

    https://github.com/GoogleCloudPlatform/cloudml-hypertune
    """
    line = {
        "timestamp": time.time(),
        "trial": environment.get("CLOUD_ML_TRIAL_ID", "0"),
        name: str(float(value)),
        "global_step": str(examples),
        "checkpoint_path": "",
    }
    with as_storage_error(metric_file(environment), "written"), metric_file(environment).open("wb") as stream:
        fill(stream, f"{json.dumps(line)}\n".encode())
