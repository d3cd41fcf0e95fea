"""The sampling pipeline: {import-model, prepare-data -> train-judge} -> sample -> evaluate."""

# mypy: disable-error-code="type-arg"
from typing import Any

from components.import_model import import_model
from factory.job import ImageSamplingJob, TextSamplingJob
from pipelines.placement import Placement, pipeline
from pipelines.training import measure, prepare


def define_sampling(job: ImageSamplingJob | TextSamplingJob, place: Placement) -> Any:
    """The pipeline that samples from the model that `job` names and measures it, ready to be compiled."""
    models = ["model"] if job.modality == "images" else ["model", "autoregressive"]

    @pipeline("image-sampling" if job.modality == "images" else "text-sampling", description=job.description)
    def sample_and_measure(
        source: dict, data: dict, sample: dict, evaluate: dict, data_fingerprint: str = "", registry: str = ""
    ) -> None:
        imported = place.step(import_model, outputs=models, registry=registry, source_config=source)
        dataset, judge = prepare(place, job, data, data_fingerprint, evaluate)
        measure(place, job, {name: imported.outputs[name] for name in models}, dataset, judge, sample, evaluate)

    return sample_and_measure
