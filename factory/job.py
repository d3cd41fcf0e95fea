"""A job: one YAML file that says what to train or sample, on which data, and how it is judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from core.config import Frozen, GateConfig, Place, ResourcesConfig, TrainConfig, validate
from core.errors import UserError
from core.images.config import ImageData, ImageEvaluate, ImageModel, ImageSample
from core.text.config import TextData, TextEvaluate, TextModel, TextSample
from factory import consistency
from factory.many import ManyConfig
from factory.search import SearchConfig

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$", description="lower case letters, digits and dashes")]


class SourceConfig(Frozen):
    """The trained model that a sampling job starts from."""

    model: Place = Field(
        min_length=1, description="registered model (name, name@champion, name@3), or a model's or checkpoint's URI"
    )
    autoregressive: Place | None = Field(None, description="for text: the autoregressive model that goes with it")


class Job(Frozen):
    """What all jobs share."""

    job: Name
    description: str = Field(min_length=1, max_length=400)
    modality: Literal["images", "text"]
    kind: Literal["training", "sampling"] = "training"
    resources: ResourcesConfig = ResourcesConfig()


class ImageTrainingJob(Job):
    """prepare-data -> {train-judge, train} -> sample -> evaluate -> gate -> register, for images."""

    modality: Literal["images"]
    kind: Literal["training"] = "training"
    data: ImageData
    model: ImageModel = ImageModel()
    train: TrainConfig
    sample: ImageSample = ImageSample()
    evaluate: ImageEvaluate = ImageEvaluate()
    gate: GateConfig
    search: SearchConfig | None = None


class ImageSamplingJob(Job):
    """A trained model -> sample -> evaluate (report only), for images."""

    modality: Literal["images"]
    kind: Literal["sampling"]
    source: SourceConfig
    data: ImageData
    sample: ImageSample = ImageSample()
    evaluate: ImageEvaluate = ImageEvaluate()
    many: ManyConfig | None = Field(None, description="very many samples besides, in shards that steps share")


class TextTrainingJob(Job):
    """The same steps for text; an autoregressive model is trained on the same data as well."""

    modality: Literal["text"]
    kind: Literal["training"] = "training"
    data: TextData
    model: TextModel = TextModel()
    train: TrainConfig
    autoregressive: TrainConfig = Field(description="training of the autoregressive model")
    warm_start: bool = Field(True, description="diffusion begins from the trained autoregressive weights")
    sample: TextSample = TextSample()
    evaluate: TextEvaluate = TextEvaluate()
    gate: GateConfig
    search: SearchConfig | None = None


class TextSamplingJob(Job):
    """A trained model -> sample -> evaluate (report only), for text."""

    modality: Literal["text"]
    kind: Literal["sampling"]
    source: SourceConfig
    data: TextData
    sample: TextSample = TextSample()
    evaluate: TextEvaluate = TextEvaluate()


AnyJob = ImageTrainingJob | ImageSamplingJob | TextTrainingJob | TextSamplingJob
_JOBS: dict[tuple[str, str], type[AnyJob]] = {
    ("images", "training"): ImageTrainingJob,
    ("images", "sampling"): ImageSamplingJob,
    ("text", "training"): TextTrainingJob,
    ("text", "sampling"): TextSamplingJob,
}


def parse_job(values: Mapping[str, Any], where: str) -> AnyJob:
    """The job that `values` describe; `where` names them in errors.

    Raises:
        UserError: a key is unknown, missing or out of range.
    """
    kind, modality = values.get("kind", "training"), values.get("modality")
    section = _JOBS.get((modality, kind)) if isinstance(modality, str) and isinstance(kind, str) else None
    if section is None:
        raise UserError(
            f"{where}: modality {modality!r} with kind {kind!r};"
            " allowed: modality images or text, kind training or sampling"
        )
    job: AnyJob = validate(section, dict(values), where)
    for problem in contradictions(job):
        raise UserError(f"{where}: {problem}")
    return job


def contradictions(job: AnyJob) -> Iterator[str]:
    """What the sections of a job ask of one another and cannot be, a sentence each."""
    if isinstance(job, ImageTrainingJob):
        yield from consistency.of_images(job.data, job.sample, job.model, job.train)
    elif isinstance(job, ImageSamplingJob):
        yield from consistency.of_images(job.data, job.sample)
        if job.many is not None and job.sample.redraw:
            yield "sample.redraw: a sample in a shard (many) depends on its number alone, not on others; set it to 0"
    elif isinstance(job, TextTrainingJob):
        yield from consistency.of_text(job.sample, job.model, (job.train, job.autoregressive))
    else:
        yield from consistency.of_text(job.sample)
    if isinstance(job, ImageTrainingJob | TextTrainingJob):
        yield from consistency.of_gate(job.gate, job.sample, job.evaluate)
