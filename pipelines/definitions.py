"""The pipelines.

    images          prepare-data -> {train-judge, train} -> sample -> evaluate -> gate -> register | keep
    text            prepare-data -> {train-judge, train-diffusion, train-autoregressive} -> sample -> ...
    ...-search      the same with a hyper-parameter search before the training (pipelines/search.py)
    image-sampling  {import-model, prepare-data -> train-judge} -> sample -> evaluate
    text-sampling   likewise

Parameters of a pipeline are the sections of the job, so that one compiled file serves every override. A step is
handed only the sections that it depends on: what it is not handed cannot spoil its cache.
"""

# mypy: disable-error-code="type-arg, untyped-decorator"
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kfp import dsl

from components.evaluate import evaluate as evaluate_step
from components.evaluate import evaluate_text as evaluate_text_step
from components.gate import gate as gate_step
from components.import_model import import_model as import_model_step
from components.import_model import import_model_text as import_model_text_step
from components.keep import keep as keep_step
from components.prepare_data import prepare_data as prepare_data_step
from components.register import register as register_step
from components.register import register_text as register_text_step
from components.sample import sample as sample_step
from components.sample import sample_text as sample_text_step
from components.step import IMAGE
from components.train import train as train_step
from components.train import train_autoregressive as train_autoregressive_step
from components.train import train_diffusion as train_diffusion_step
from components.train import train_diffusion_warm as train_diffusion_warm_step
from components.train_judge import train_judge as train_judge_step
from core.config import ResourcesConfig
from factory.job import AnyJob, ImageTrainingJob, TextTrainingJob
from pipelines.custom_job import VertexOptions, custom_job
from pipelines.machines import Machine, choose

Target = Literal["local", "vertex"]  # "local" is also what Kubeflow runs
Tune = Callable[..., Any]  # (train, dataset, judge, **models that are trained by then) -> the `train` section to use


@dataclass(frozen=True)
class Placement:
    """Where steps run: the machines that a job chose, on one of the targets."""

    target: Target
    machines: Mapping[str, Machine]
    resources: ResourcesConfig
    options: VertexOptions = field(default_factory=VertexOptions)

    def training(self, component: Any) -> Any:
        """The component that trains: a custom job on Vertex, itself elsewhere. Call it outside of a pipeline."""
        if self.target != "vertex":
            return component
        return custom_job(component, self.machine("train"), self.resources, self.options)

    def trained(self, task: Any) -> Any:
        """Places a task whose component came from `training`."""
        if self.target == "vertex":
            return task  # the custom job carries its machine; the task is only its launcher
        return self.place(task, "train")

    def place(self, task: Any, kind: str, *, cached: bool = True) -> Any:
        """Gives a task its machine (`kind` is a key of the job's resources), its image's name and its caching."""
        machine = self.machine(kind)
        task.set_env_variable("TEXTDIFFUSION_IMAGE", IMAGE)
        task.set_cpu_limit(str(machine.cpu)).set_memory_limit(f"{machine.memory_gb}G")
        if machine.accelerator_type and self.target == "vertex":
            task.set_accelerator_type(machine.accelerator_type).set_accelerator_limit(machine.accelerator_count)
        elif machine.accelerator_type:
            from kfp import kubernetes

            task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(machine.accelerator_count)
            for label, value in machine.node_selector.items():
                kubernetes.add_node_selector(task, label_key=label, label_value=value)
        if not cached:
            task.set_caching_options(enable_caching=False)
        return task

    def machine(self, kind: str) -> Machine:
        """The row of resources.yaml for `kind`."""
        return choose(self.machines, str(getattr(self.resources, kind)), f"resources.{kind}")


def define(job: AnyJob, place: Placement) -> Any:
    """The pipeline of `job`, ready to be compiled; with a section `search`, the one that searches first."""
    if isinstance(job, ImageTrainingJob | TextTrainingJob) and job.search is not None:
        from pipelines.search import define_search  # which is made of what stands here

        return define_search(job, place)
    if isinstance(job, ImageTrainingJob):
        return _images(job, place)
    if isinstance(job, TextTrainingJob):
        return _text(job, place)
    return _image_sampling(job, place) if job.modality == "images" else _text_sampling(job, place)


def _images(job: ImageTrainingJob, place: Placement) -> Any:
    body = image_training(place)

    @dsl.pipeline(name="images", description=job.description)
    def images(
        data: dict,
        model: dict,
        train: dict,
        sample: dict,
        evaluate: dict,
        gate: dict,
        model_name: str,
        data_fingerprint: str = "",
        registry: str = "",
        run: str = "",
        work: str = "",
    ) -> None:
        body(data=data, data_fingerprint=data_fingerprint, model=model, train=train, sample=sample, evaluate=evaluate,
             gate=gate, registry=registry, model_name=model_name, run=run, work=work)  # fmt: skip

    return images


def _text(job: TextTrainingJob, place: Placement) -> Any:
    body = text_training(place, warm=job.warm_start)

    @dsl.pipeline(name="text", description=job.description)
    def text(
        data: dict,
        model: dict,
        train: dict,
        autoregressive: dict,
        sample: dict,
        evaluate: dict,
        gate: dict,
        model_name: str,
        data_fingerprint: str = "",
        registry: str = "",
        run: str = "",
        work: str = "",
    ) -> None:
        body(data=data, data_fingerprint=data_fingerprint, model=model, train=train, autoregressive=autoregressive,
             sample=sample, evaluate=evaluate, gate=gate, registry=registry, model_name=model_name, run=run,
             work=work)  # fmt: skip

    return text


def image_training(place: Placement) -> Callable[..., None]:
    """What a pipeline that trains a model of images does. Call this outside of a pipeline, and what it returns inside,
    with the pipeline's parameters; `tune` may put other settings of the training in the place of the job's."""
    train_component = place.training(train_step)

    def body(*, data: Any, data_fingerprint: Any, model: Any, train: Any, sample: Any, evaluate: Any, gate: Any,
             registry: Any, model_name: Any, run: Any, work: Any, tune: Tune = _as_given) -> None:  # fmt: skip
        dataset, judge = _begin(place, "images", data, data_fingerprint, evaluate)
        trained = place.trained(
            train_component(
                modality="images",
                model_config=model,
                train_config=tune(train, dataset, judge),
                work=work,
                dataset=dataset,
            )
        )
        models = {"model": trained.outputs["model"]}
        _finish(place, "images", models, dataset, judge, sample, evaluate, gate, registry, model_name, run)

    return body


def text_training(place: Placement, *, warm: bool) -> Callable[..., None]:
    """The same for text; `warm`: diffusion begins from the autoregressive model, which `tune` is handed too."""
    diffusion_component = place.training(train_diffusion_warm_step if warm else train_diffusion_step)
    autoregressive_component = place.training(train_autoregressive_step)

    def body(*, data: Any, data_fingerprint: Any, model: Any, train: Any, autoregressive: Any, sample: Any,
             evaluate: Any, gate: Any, registry: Any, model_name: Any, run: Any, work: Any,
             tune: Tune = _as_given) -> None:  # fmt: skip
        dataset, judge = _begin(place, "text", data, data_fingerprint, evaluate)
        settings = {"modality": "text", "model_config": model, "work": work, "dataset": dataset}
        control = place.trained(autoregressive_component(train_config=autoregressive, **settings))
        models = {"autoregressive": control.outputs["autoregressive"]}
        start = models if warm else {}
        tuned = tune(train, dataset, judge, **models)
        trained = place.trained(diffusion_component(train_config=tuned, **settings, **start))
        models["model"] = trained.outputs["model"]
        _finish(place, "text", models, dataset, judge, sample, evaluate, gate, registry, model_name, run)

    return body


def _as_given(train: Any, dataset: Any, judge: Any, **models: Any) -> Any:
    return train


def _begin(place: Placement, modality: str, data: Any, data_fingerprint: Any, evaluate: Any) -> tuple[Any, Any]:
    """What comes before all else: prepare-data -> train-judge; their data set and judge."""
    prepared = place.place(
        prepare_data_step(modality=modality, data_config=data, data_fingerprint=data_fingerprint), "cpu"
    )
    dataset = prepared.outputs["dataset"]
    judged = place.place(train_judge_step(modality=modality, evaluate_config=evaluate, dataset=dataset), "sample")
    return dataset, judged.outputs["judge"]


def _finish(
    place: Placement,
    modality: str,
    models: Mapping[str, Any],
    dataset: Any,
    judge: Any,
    sample: Any,
    evaluate: Any,
    gate: Any,
    registry: Any,
    model_name: Any,
    run: Any,
) -> None:
    """What follows a training, inside a pipeline: sample -> evaluate -> gate -> register | keep.

    Args:
        place: the machines.
        modality: images or text.
        models: the trained `model`, for text the `autoregressive` one too.
        dataset, judge: outputs of the steps that made them.
        sample, evaluate, gate, registry, model_name, run: parameters of the pipeline.
    """
    images = modality == "images"
    sampling, measuring = (sample_step, evaluate_step) if images else (sample_text_step, evaluate_text_step)
    sampled = place.place(sampling(modality=modality, sample_config=sample, **models), "sample")
    measured = place.place(
        measuring(
            modality=modality,
            evaluate_config=evaluate,
            dataset=dataset,
            judge=judge,
            samples=sampled.outputs["samples"],
            **models,
        ),
        "sample",
    )
    evaluation = measured.outputs["evaluation"]
    gated = place.place(
        gate_step(
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
        ),
        "sample",
        cached=False,
    )
    verdict = gated.outputs["verdict"]
    with dsl.If(gated.outputs["Output"] == "promote", name="promote"):
        registering = register_step if images else register_text_step
        registered = registering(
            registry=registry, model_name=model_name, run=run, evaluation=evaluation, verdict=verdict, **models
        )
        place.place(registered, "cpu", cached=False)
    with dsl.Else(name="refuse"):
        kept = keep_step(registry=registry, model_name=model_name, run=run, verdict=verdict)
        place.place(kept, "cpu", cached=False)


def _image_sampling(job: AnyJob, place: Placement) -> Any:
    @dsl.pipeline(name="image-sampling", description=job.description)
    def image_sampling(
        source: dict, data: dict, sample: dict, evaluate: dict, data_fingerprint: str = "", registry: str = ""
    ) -> None:
        imported = place.place(import_model_step(registry=registry, source_config=source), "cpu", cached=False)
        dataset, judge = _begin(place, "images", data, data_fingerprint, evaluate)
        model = imported.outputs["model"]
        sampled = place.place(sample_step(modality="images", sample_config=sample, model=model), "sample")
        measured = evaluate_step(
            modality="images",
            evaluate_config=evaluate,
            dataset=dataset,
            judge=judge,
            model=model,
            samples=sampled.outputs["samples"],
        )
        place.place(measured, "sample")

    return image_sampling


def _text_sampling(job: AnyJob, place: Placement) -> Any:
    @dsl.pipeline(name="text-sampling", description=job.description)
    def text_sampling(
        source: dict, data: dict, sample: dict, evaluate: dict, data_fingerprint: str = "", registry: str = ""
    ) -> None:
        imported = place.place(import_model_text_step(registry=registry, source_config=source), "cpu", cached=False)
        dataset, judge = _begin(place, "text", data, data_fingerprint, evaluate)
        models = {"model": imported.outputs["model"], "autoregressive": imported.outputs["autoregressive"]}
        sampled = place.place(sample_text_step(modality="text", sample_config=sample, **models), "sample")
        measured = evaluate_text_step(
            modality="text",
            evaluate_config=evaluate,
            dataset=dataset,
            judge=judge,
            samples=sampled.outputs["samples"],
            **models,
        )
        place.place(measured, "sample")

    return text_sampling
