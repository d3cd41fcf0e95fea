"""What a step is asked to do: one frozen request a step, passed as it is from a component to the modality's code.

A request holds paths and the sections of the job that the step depends on. The modality validates its sections by its
own schema (`core/images/config.py`, `core/text/config.py`), so an error names the section and the key. Where a step
runs on several processes, its request travels to them as JSON (`core/modality.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from core.config import Frozen
from core.errors import UserError

Section = dict[str, Any]
Facts = dict[str, Any]
"""Flat metadata for the artifact that a step wrote."""
ModalityName = Literal["images", "text"]


def modality_name(name: str) -> ModalityName:
    """`name`, if it is one of a modality.

    Raises:
        UserError: there is no such modality.
    """
    match name:
        case "images":
            return "images"
        case "text":
            return "text"
    raise UserError(f"modality: found {name!r}; allowed: images, text")


class PrepareDataRequest(Frozen):
    """Read, check, split and hash the data set that `data` names into the folder `out`."""

    step: Literal["prepare-data"] = "prepare-data"
    modality: ModalityName
    data: Section
    out: Path
    shards: str | None = Field(None, description="gs:// prefix of what is too large for `out`; default: in `out`")


class TrainJudgeRequest(Frozen):
    """Make the model that judges samples from the real training split in `dataset`."""

    step: Literal["train-judge"] = "train-judge"
    modality: ModalityName
    evaluate: Section
    dataset: Path
    out: Path


class TrainRequest(Frozen):
    """Train a model on `dataset` into the model folder `out`."""

    step: Literal["train"] = "train"
    modality: ModalityName
    model: Section
    train: Section
    dataset: Path
    out: Path
    objective: str = Field("diffusion", description="diffusion; for text also autoregressive, masked or original")
    work: str | None = Field(
        None,
        description="folder or gs:// prefix of checkpoints, each training under a key of its own, so that a killed step"
        " resumes wherever it runs; default: TEXTDIFFUSION_WORK, then a folder beside `out`",
    )
    warm_start: Path | None = Field(None, description="model folder that training begins from")


class SampleRequest(Frozen):
    """Draw samples from a trained model into the folder `out`."""

    step: Literal["sample"] = "sample"
    modality: ModalityName
    sample: Section
    model: Path
    out: Path
    autoregressive: Path | None = Field(None, description="for text: the autoregressive model's folder")


class EvaluateRequest(Frozen):
    """Measure `samples` against the real data in `dataset`: metrics.json in `out`, each with floor, count and judge."""

    step: Literal["evaluate"] = "evaluate"
    modality: ModalityName
    evaluate: Section
    dataset: Path
    judge: Path
    model: Path
    samples: Path
    out: Path
    autoregressive: Path | None = Field(None, description="for text: the autoregressive model's folder")


Request = PrepareDataRequest | TrainJudgeRequest | TrainRequest | SampleRequest | EvaluateRequest
_REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="step")])


def parse_request(text: str) -> Request:
    """The request that `model_dump_json` wrote."""
    return _REQUEST.validate_json(text)


class ShardRequest(Frozen):
    """What the shards of a sampling of very many samples are drawn by; `size` is the samples in one shard."""

    modality: ModalityName
    sample: Section
    model: Path
    size: int = Field(ge=1)


@dataclass(frozen=True)
class ShardDrawer:
    """Draws any range of very many samples.

    Args:
        draw: (start, stop) -> the content of a file with these samples; a function of nothing else.
        suffix: of the file.
        facts: settings and model: equal facts draw equal files.
    """

    draw: Callable[[int, int], bytes]
    suffix: str
    facts: Facts
