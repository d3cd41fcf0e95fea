"""The steps by argument: each builds the request of core/requests.py and runs it (core/modality.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.config import validate
from core.modality import run
from core.requests import (
    EvaluateRequest,
    Facts,
    PrepareDataRequest,
    SampleRequest,
    TrainJudgeRequest,
    TrainRequest,
)

Section = Mapping[str, Any]


def prepare_data(modality: str, data: Section, out: Path) -> Facts:
    """See PrepareDataRequest."""
    return run(validate(PrepareDataRequest, {"modality": modality, "data": data, "out": out}, "request"))


def train_judge(modality: str, evaluate: Section, dataset: Path, out: Path) -> Facts:
    """See TrainJudgeRequest."""
    asked = {"modality": modality, "evaluate": evaluate, "dataset": dataset, "out": out}
    return run(validate(TrainJudgeRequest, asked, "request"))


def train(modality: str, model: Section, train: Section, dataset: Path, out: Path, **more: Any) -> Facts:
    """See TrainRequest; `more` are objective, work and warm_start."""
    asked = {"modality": modality, "model": model, "train": train, "dataset": dataset, "out": out, **more}
    return run(validate(TrainRequest, asked, "request"))


def sample(modality: str, sample: Section, model: Path, out: Path, *, autoregressive: Path | None = None) -> Facts:
    """See SampleRequest."""
    asked = {"modality": modality, "sample": sample, "model": model, "out": out, "autoregressive": autoregressive}
    return run(validate(SampleRequest, asked, "request"))


def evaluate(
    modality: str, evaluate: Section, dataset: Path, judge: Path, model: Path, samples: Path, out: Path, **more: Any
) -> Facts:
    """See EvaluateRequest; `more` is autoregressive."""
    paths = {"dataset": dataset, "judge": judge, "model": model, "samples": samples, "out": out}
    return run(validate(EvaluateRequest, {"modality": modality, "evaluate": evaluate, **paths, **more}, "request"))
