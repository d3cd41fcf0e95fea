"""The sampling pipeline: {import-model, prepare-data -> train-judge} -> sample -> evaluate.

With a section `many`, steps share very many samples besides: plan-shards -> draw-shards, each worker -> collect-shards.
"""

# mypy: disable-error-code="type-arg"
from typing import Any

from kfp import dsl

from components.import_model import import_model
from components.many import collect_shards, draw_shards, plan_shards
from factory.job import ImageSamplingJob, TextSamplingJob
from pipelines.placement import Placement, pipeline
from pipelines.training import measure, prepare


def define_sampling(job: ImageSamplingJob | TextSamplingJob, place: Placement) -> Any:
    """The pipeline that samples from the model that `job` names and measures it, ready to be compiled."""
    models = ["model"] if job.modality == "images" else ["model", "autoregressive"]

    many_wanted = job.many if isinstance(job, ImageSamplingJob) else None

    @pipeline(
        "image-sampling" if job.modality == "images" else "text-sampling",
        description=job.description,
        without=[] if many_wanted else ["many", "work"],
    )
    def sample_and_measure(
        source: dict,
        data: dict,
        sample: dict,
        evaluate: dict,
        many: dict,
        data_fingerprint: str = "",
        registry: str = "",
        work: str = "",
    ) -> None:
        imported = place.step(import_model, outputs=models, registry=registry, source_config=source)
        dataset, judge = prepare(place, job, data, data_fingerprint, evaluate)
        measure(place, job, {name: imported.outputs[name] for name in models}, dataset, judge, sample, evaluate)
        if many_wanted:
            planned = place.step(plan_shards, many_config=many)
            settings = {"sample_config": sample, "many_config": many}
            with dsl.ParallelFor(planned.output, name="for-each-worker", parallelism=many_wanted.parallel) as worker:
                drawn = place.step(
                    draw_shards,
                    modality=job.modality,
                    worker=worker,
                    work=work,
                    model=imported.outputs["model"],
                    **settings,
                )
            place.step(collect_shards, drawn=dsl.Collected(drawn.outputs["drawn"]), **settings)

    return sample_and_measure
