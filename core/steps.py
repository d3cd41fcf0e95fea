"""The steps of a pipeline, for either modality: paths in, paths out, a configuration, nothing global.

Components call these and nothing else of core. Each takes the sections of the configuration that it depends on and
returns flat metadata for the artifact that it wrote. A modality's code is imported when one of its steps runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.processes import launch

Section = Mapping[str, Any]
Metadata = dict[str, Any]


def _steps_of(modality: str) -> Any:
    if modality not in ("images", "text"):
        raise UserError(f"modality: found {modality!r}; allowed: images, text")
    return import_module(f"core.{modality}.steps")


def prepare_data(modality: str, data: Section, out: Path) -> Metadata:
    """Reads, checks, splits and hashes the data set that `data` names into the folder `out`."""
    return dict(_steps_of(modality).prepare_data(data, out))


def train_judge(modality: str, evaluate: Section, dataset: Path, out: Path) -> Metadata:
    """Trains the model that judges samples, on the real training split."""
    return dict(_steps_of(modality).train_judge(evaluate, dataset, out))


def train(
    modality: str,
    model: Section,
    train: Section,
    dataset: Path,
    out: Path,
    *,
    objective: str = "diffusion",
    work: str | None = None,
    warm_start: Path | None = None,
) -> Metadata:
    """Trains a model. `work` is a stable place for checkpoints, so that a killed step resumes wherever it is run.

    Called on each node of a cluster, or where there are several GPUs, it trains in one process for each of them
    (core/processes/launch.py); what comes back is the same on every node.
    """
    paths = {"dataset": dataset, "out": out, "warm_start": warm_start}
    return _on_all("train", modality, {"model": model, "train": train, "objective": objective, "work": work, **paths})


def sample(modality: str, sample: Section, model: Path, out: Path, *, autoregressive: Path | None = None) -> Metadata:
    """Draws samples from a trained model, batches divided over processes as in `train`."""
    arguments = {"sample": sample, "model": model, "out": out, "autoregressive": autoregressive}
    return _on_all("sample", modality, arguments)


def evaluate(
    modality: str,
    evaluate: Section,
    dataset: Path,
    judge: Path,
    model: Path,
    samples: Path,
    out: Path,
    *,
    autoregressive: Path | None = None,
) -> Metadata:
    """Measures samples against real data: metrics.json, each with its floor, count and judge.

    What is measured is divided over processes as in `train`, and the same for any number of them.
    """
    paths = {"dataset": dataset, "judge": judge, "model": model, "samples": samples, "out": out}
    return _on_all("evaluate", modality, {"evaluate": evaluate, **paths, "autoregressive": autoregressive})


def _on_all(step: str, modality: str, arguments: dict[str, Any]) -> Metadata:
    """The modality's step, in each process of the cluster that this is a node of."""
    run = getattr(_steps_of(modality), step)
    cluster = launch.here()
    if cluster.size == 1:
        return dict(run(**arguments))
    return launch.launch(cluster, step, {"modality": modality, **arguments})


def drawer(modality: str, sample: Section, model: Path, size: int) -> Any:
    """What draws any range of very many samples, `size` at a time; the files' suffix; and what was settled."""
    _steps_of(modality)
    return import_module(f"core.{modality}.shards").drawer(sample, model, size)
