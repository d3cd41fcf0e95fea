"""The training pipeline.

    images   prepare-data -> {train-judge, train} -> sample -> evaluate -> gate -> register | keep
    text     prepare-data -> {train-judge, train-diffusion, train-autoregressive} -> sample -> ...

With a section `search`, trials come before the training (pipelines/search.py).

Parameters of a pipeline are the sections of the job, so that one compiled file serves every override. A step is
handed only the sections that it depends on: what it is not handed cannot spoil its cache.
"""

# mypy: disable-error-code="type-arg"
from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.evaluate import evaluate as evaluate_step
from components.gate import gate as gate_step
from components.keep import keep
from components.prepare_data import prepare_data
from components.register import register
from components.sample import sample as sample_step
from components.train import train as train_step
from components.train import train_autoregressive, train_diffusion
from components.train_judge import train_judge
from core.evaluation import Decision
from factory.job import AnyJob, ImageTrainingJob, TextTrainingJob
from pipelines.jobs import SECTIONS, sections
from pipelines.placement import Placement, pipeline
from pipelines.search import define_search


def define_training(job: ImageTrainingJob | TextTrainingJob, place: Placement) -> Any:
    """The pipeline that trains the model of `job`, ready to be compiled."""
    modality, images = job.modality, job.modality == "images"
    warm = isinstance(job, TextTrainingJob) and job.warm_start  # diffusion begins from the autoregressive model
    train_model = place.training(train_step if images else train_diffusion, ["autoregressive"] if warm else [])
    train_first = place.training(train_autoregressive)
    search_step = define_search(job, place) if job.search else None

    @pipeline(
        f"{modality}-search" if job.search else modality,
        description=job.description,
        without=set(SECTIONS) - set(sections(job)),
    )
    def train_and_register(
        data: dict,
        model: dict,
        train: dict,
        autoregressive: dict,
        sample: dict,
        evaluate: dict,
        gate: dict,
        search: dict,
        model_name: str,
        data_fingerprint: str = "",
        registry: str = "",
        run: str = "",
        work: str = "",
    ) -> None:
        dataset, judge = prepare(place, job, data, data_fingerprint, evaluate)
        models: dict[str, Any] = {}
        settings = {"modality": modality, "model_config": model, "work": work, "dataset": dataset}
        if not images:
            trained = place.step(train_first, train_config=autoregressive, **settings)
            models["autoregressive"] = trained.outputs["autoregressive"]
        if search_step is not None:
            measured = {"sample_config": sample, "evaluate_config": evaluate, "judge": judge}
            train = search_step(search, train, settings | measured | models)
        trained = place.step(train_model, train_config=train, **settings, **(models if warm else {}))
        models["model"] = trained.outputs["model"]
        evaluation = measure(place, job, models, dataset, judge, sample, evaluate)
        gated = place.step(
            gate_step,
            modality=modality,
            gate_config=gate,
            sample_config=sample,
            evaluate_config=evaluate,
            registry=registry,
            model_name=model_name,
            dataset=dataset,
            judge=judge,
            model=models["model"],
            evaluation=evaluation,
        )
        decided = {"registry": registry, "model_name": model_name, "run": run, "verdict": gated.outputs["verdict"]}
        with dsl.If(gated.outputs["Output"] != Decision.KEEP.value, name="accept"):
            place.step(register, evaluation=evaluation, **decided, **models)
        with dsl.Else(name="refuse"):
            place.step(keep, **decided)

    return train_and_register


def prepare(place: Placement, job: AnyJob, data: Any, data_fingerprint: Any, evaluate: Any) -> tuple[Any, Any]:
    """prepare-data -> train-judge, inside a pipeline: their data set and judge."""
    prepared = place.step(prepare_data, modality=job.modality, data_config=data, data_fingerprint=data_fingerprint)
    dataset = prepared.outputs["dataset"]
    judged = place.step(train_judge, modality=job.modality, evaluate_config=evaluate, dataset=dataset)
    return dataset, judged.outputs["judge"]


def measure(
    place: Placement, job: AnyJob, models: Mapping[str, Any], dataset: Any, judge: Any, sample: Any, evaluate: Any
) -> Any:
    """sample -> evaluate, inside a pipeline: the evaluation of `models`, which are `model` and for text
    `autoregressive`."""
    sampled = place.step(sample_step, modality=job.modality, sample_config=sample, **models)
    measured = place.step(
        evaluate_step,
        outputs=["classification"] if job.modality == "images" else [],
        modality=job.modality,
        evaluate_config=evaluate,
        dataset=dataset,
        judge=judge,
        samples=sampled.outputs["samples"],
        **models,
    )
    return measured.outputs["evaluation"]
