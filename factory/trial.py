"""One trial of a hyper-parameter search: a short training, measured by its validation loss or by its samples."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError
from core.evaluation import Evaluation
from core.metrics import Metrics
from core.modality import run
from core.requests import EvaluateRequest, ModalityName, SampleRequest, Section, TrainRequest
from core.storage import scratches
from core.storage.drives import fill
from core.storage.faults import as_storage_error
from factory.search import VALIDATION_LOSS

METRIC_FILE = "CLOUD_ML_HP_METRIC_FILE"
"""Where Vertex AI's tuning service reads a trial's metric; it sets the variable in the trial's container."""
USER = 10001  # of containers/Dockerfile


def run_trial(
    modality: ModalityName,
    model: Section,
    trial: Mapping[str, Any],
    dataset: Path,
    out: Path,
    *,
    work: str | None = None,
    warm_start: Path | None = None,
    sample: Section | None = None,
    evaluate: Section | None = None,
    judge: Path | None = None,
    autoregressive: Path | None = None,
) -> dict[str, Any]:
    """Trains what `trial` (see `factory.search.make_trial`) says; trial.json and the training's log go into `out`.

    A training that refuses its settings (it diverged, it does not fit into memory) is a trial without a value and
    with an error. Anything else ends the step: a signal, a broken data set, a metric that is not there.

    Args:
        work: as of a training: killed and run again, the trial goes on from its last checkpoint there.
        sample, evaluate, judge: needed where the metric is one of metrics.json.

    Returns:
        What trial.json says.
    """
    import torch

    metric = str(trial["metric"])
    facts: dict[str, Any] = {"trial": trial["trial"], "parameters": trial["parameters"], "value": None, "error": None}
    began = time.monotonic()
    with scratches.temporary_folder("trial") as scratch, storage.atomic_folder(out, "trial.json") as folder:
        trained = scratch / "model"
        try:
            found = run(
                TrainRequest(
                    modality=modality,
                    model=model,
                    train=trial["train"],
                    dataset=dataset,
                    out=trained,
                    work=work,
                    warm_start=warm_start,
                )
            )
        except UserError as error:
            if error.EXIT_CODE != UserError.EXIT_CODE:  # stopped by a signal
                raise
            facts["error"] = str(error)
        except torch.OutOfMemoryError as error:
            facts["error"] = f"out of memory: {' '.join(str(error).split())[:200]}"
        else:
            if (trained / "train_log.jsonl").exists():
                storage.write_bytes(folder / "train_log.jsonl", (trained / "train_log.jsonl").read_bytes())
            facts |= {key: found[key] for key in ("examples_seen", "device") if key in found}
            if metric == VALIDATION_LOSS:
                facts["value"] = found[VALIDATION_LOSS]
            else:
                assert judge is not None
                asked = SampleRequest(
                    modality=modality,
                    sample=sample or {},
                    model=trained,
                    out=scratch / "samples",
                    autoregressive=autoregressive,
                )
                measured = _measured(asked, evaluate or {}, dataset, judge, scratch / "evaluation")
                facts["value"] = _metric(measured, metric)
            if facts["value"] is None:
                facts["error"] = f"{metric} is not a finite number"
        facts["seconds"] = round(time.monotonic() - began, 1)
        storage.write_json(folder / "trial.json", facts)
    return facts


def _measured(asked: SampleRequest, evaluate: Section, dataset: Path, judge: Path, out: Path) -> Metrics:
    """Metrics of the samples that are asked for."""
    run(asked)
    run(
        EvaluateRequest(
            modality=asked.modality,
            evaluate=evaluate,
            dataset=dataset,
            judge=judge,
            model=asked.model,
            samples=asked.out,
            out=out,
            autoregressive=asked.autoregressive,
        )
    )
    return Evaluation.read(out).metrics


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
