"""The retraining pipeline: the job's own behind a look at its data.

    check-data -> (training -> remember-data | nothing)

The data source is a prefix (`data.data_dir`), so every run sees new files. When neither files nor configuration
changed since the last retraining, nothing is trained, and the model's history says why. Otherwise the files'
fingerprint goes into the training, whose gate promotes a challenger only if it beats the champion on the same held-out
data, noise and judge.
"""

from typing import Any

from kfp import dsl

from components.check_data import check_data, remember_data
from core.errors import UserError
from factory.job import AnyJob, ImageTrainingJob, TextTrainingJob
from pipelines.placement import Placement, pipeline
from pipelines.training import define_training


def define_retraining(job: AnyJob, place: Placement) -> Any:
    """The retraining pipeline of a training job, ready to be compiled.

    Raises:
        UserError: the job does not train.
    """
    if not isinstance(job, ImageTrainingJob | TextTrainingJob):
        raise UserError(f"{job.job}: is a sampling job; only training jobs are retrained")
    training = define_training(job, place)

    @pipeline(f"{job.modality}-retraining", like=training, without=["data_fingerprint"])
    def train_if_changed(**given: Any) -> None:
        sections = ("data", "model", "train", "autoregressive", "evaluate")
        model = {"registry": given["registry"], "model_name": given["model_name"]}
        checked = place.step(
            check_data, **model, **{f"{name}_config": given[name] for name in sections if name in given}
        )
        with dsl.If(checked.outputs["Output"] != "skip", name="changed"):
            trained = training(**given, data_fingerprint=checked.outputs["Output"])
            place.step(remember_data, **model, found=checked.outputs["found"]).after(trained)

    return train_if_changed
