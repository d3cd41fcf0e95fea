"""Retraining: the job's own pipeline behind a look at its data.

    check-data -> (job's pipeline -> remember-data | nothing)

The data source is a prefix (`data.data_dir`), so new files are found by every run. When neither files nor
configuration changed since the last retraining, nothing is trained, and the model's history says why. Otherwise the
files' fingerprint goes into the job's pipeline, whose gate promotes a challenger only if it beats the champion on the
same held-out data, noise and judge.
"""

# mypy: disable-error-code="type-arg, untyped-decorator"
from typing import Any

from kfp import dsl

from components.check_data import check_data, remember_data
from core.errors import UserError
from factory.job import AnyJob
from pipelines.definitions import Placement, define


def define_retraining(job: AnyJob, place: Placement) -> Any:
    """The retraining pipeline of a training job, ready to be compiled.

    Raises:
        UserError: the job does not train.
    """
    if job.kind != "training":
        raise UserError(f"{job.job}: is a sampling job; only training jobs are retrained")
    inner = define(job, place)
    return _images(inner, place) if job.modality == "images" else _text(inner, place)


def _images(inner: Any, place: Placement) -> Any:
    @dsl.pipeline(name="images-retraining")
    def images_retraining(
        data: dict,
        model: dict,
        train: dict,
        sample: dict,
        evaluate: dict,
        gate: dict,
        model_name: str,
        registry: str = "",
        run: str = "",
        work: str = "",
    ) -> None:
        looked = place.place(
            check_data(
                data_config=data,
                model_config=model,
                train_config=train,
                evaluate_config=evaluate,
                registry=registry,
                model_name=model_name,
            ),
            "cpu",
            cached=False,
        )
        with dsl.If(looked.outputs["Output"] != "skip", name="changed"):
            trained = inner(
                data=data,
                model=model,
                train=train,
                sample=sample,
                evaluate=evaluate,
                gate=gate,
                model_name=model_name,
                data_fingerprint=looked.outputs["Output"],
                registry=registry,
                run=run,
                work=work,
            )
            _remember(place, registry, model_name, looked, trained)

    return images_retraining


def _text(inner: Any, place: Placement) -> Any:
    @dsl.pipeline(name="text-retraining")
    def text_retraining(
        data: dict,
        model: dict,
        train: dict,
        autoregressive: dict,
        sample: dict,
        evaluate: dict,
        gate: dict,
        model_name: str,
        registry: str = "",
        run: str = "",
        work: str = "",
    ) -> None:
        looked = place.place(
            check_data(
                data_config=data,
                model_config=model,
                train_config=train,
                autoregressive_config=autoregressive,
                evaluate_config=evaluate,
                registry=registry,
                model_name=model_name,
            ),
            "cpu",
            cached=False,
        )
        with dsl.If(looked.outputs["Output"] != "skip", name="changed"):
            trained = inner(
                data=data,
                model=model,
                train=train,
                autoregressive=autoregressive,
                sample=sample,
                evaluate=evaluate,
                gate=gate,
                model_name=model_name,
                data_fingerprint=looked.outputs["Output"],
                registry=registry,
                run=run,
                work=work,
            )
            _remember(place, registry, model_name, looked, trained)

    return text_retraining


def _remember(place: Placement, registry: Any, model_name: Any, looked: Any, trained: Any) -> None:
    task = remember_data(registry=registry, model_name=model_name, found=looked.outputs["found"]).after(trained)
    place.place(task, "cpu", cached=False)
