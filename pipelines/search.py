"""Hyper-parameter search: the job's own pipeline with trials before the training.

    local, Kubeflow   ... -> suggest -> for each suggestion: trial -> choose -> train -> sample -> ...
    Vertex            ... -> plan-trials -> trials (a hyper-parameter tuning job) -> choose -> train -> ...

The trials are short trainings; `choose` gives the winner's settings to the one training in full, whose model meets the
same gate as any other.
"""

# mypy: disable-error-code="type-arg, untyped-decorator"
import copy
from functools import partial
from typing import Any

from kfp import dsl

from components.choose import choose as choose_step
from components.choose import choose_tuned as choose_tuned_step
from components.plan_trials import plan_trials as plan_trials_step
from components.step import IMAGE
from components.suggest import suggest as suggest_step
from components.trial import trial as trial_step
from factory.job import ImageTrainingJob, TextTrainingJob
from factory.search import VALIDATION_LOSS
from pipelines.costs import TRIALS
from pipelines.definitions import Placement, Tune, image_training, text_training


def define_search(job: ImageTrainingJob | TextTrainingJob, place: Placement) -> Any:
    """The pipeline of a job that has a section `search`, ready to be compiled."""
    search = _tuning_job(job, place) if place.target == "vertex" else _loop(job, place)
    return _images(job, place, search) if isinstance(job, ImageTrainingJob) else _text(job, place, search)


def _images(job: ImageTrainingJob, place: Placement, find: Tune) -> Any:
    body = image_training(place)

    @dsl.pipeline(name="images-search", description=job.description)
    def images_search(
        data: dict,
        model: dict,
        train: dict,
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
        tune = partial(find, search, model, sample, evaluate, work)
        body(data=data, data_fingerprint=data_fingerprint, model=model, train=train, sample=sample, evaluate=evaluate,
             gate=gate, registry=registry, model_name=model_name, run=run, work=work, tune=tune)  # fmt: skip

    return images_search


def _text(job: TextTrainingJob, place: Placement, find: Tune) -> Any:
    body = text_training(place, warm=job.warm_start)

    @dsl.pipeline(name="text-search", description=job.description)
    def text_search(
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
        tune = partial(find, search, model, sample, evaluate, work)
        body(data=data, data_fingerprint=data_fingerprint, model=model, train=train, autoregressive=autoregressive,
             sample=sample, evaluate=evaluate, gate=gate, registry=registry, model_name=model_name, run=run,
             work=work, tune=tune)  # fmt: skip

    return text_search


def _handed(job: ImageTrainingJob | TextTrainingJob, sample: Any, evaluate: Any, judge: Any, models: Any) -> Any:
    """The inputs that trials of this job need and others do not: what they are not handed cannot spoil their cache."""
    assert job.search is not None
    measured = job.search.metric != VALIDATION_LOSS
    handed: dict[str, Any] = {"modality": job.modality}
    if measured:
        handed |= {"sample_config": sample, "evaluate_config": evaluate, "judge": judge}
    if models and (measured or getattr(job, "warm_start", False)):
        handed |= {**models, "warm_start": bool(getattr(job, "warm_start", False))}
    return handed


def _loop(job: ImageTrainingJob | TextTrainingJob, place: Placement) -> Tune:
    """A search whose trials are steps."""
    settings = job.search
    assert settings is not None

    def find(search: Any, model: Any, sample: Any, evaluate: Any, work: Any, train: Any, dataset: Any, judge: Any,
             **models: Any) -> Any:  # fmt: skip
        suggested = place.place(suggest_step(search_config=search, train_config=train), "cpu")
        with dsl.ParallelFor(suggested.output, name="for-each-suggestion", parallelism=settings.parallel) as suggestion:
            tried = place.place(
                trial_step(
                    suggestion=suggestion,
                    model_config=model,
                    work=work,
                    dataset=dataset,
                    **_handed(job, sample, evaluate, judge, models),
                ),
                "train",
            )
        trials = dsl.Collected(tried.outputs["tried"])
        chosen = choose_step(search_config=search, train_config=train, trials=trials)
        return place.place(chosen, "cpu").outputs["Output"]

    return find


def _tuning_job(job: ImageTrainingJob | TextTrainingJob, place: Placement) -> Tune:
    """A search that Vertex AI conducts: one hyper-parameter tuning job, whose trials are containers of their own."""
    from google_cloud_pipeline_components import _placeholders
    from google_cloud_pipeline_components.v1.hyperparameter_tuning_job import HyperparameterTuningJobRunOp

    run_trials = copy.deepcopy(HyperparameterTuningJobRunOp)
    run_trials.name = run_trials.component_spec.name = TRIALS
    machine, options = place.machine("train"), place.options

    def find(search: Any, model: Any, sample: Any, evaluate: Any, work: Any, train: Any, dataset: Any, judge: Any,
             **models: Any) -> Any:  # fmt: skip
        planned = place.place(
            plan_trials_step(
                search_config=search,
                model_config=model,
                train_config=train,
                work=work,
                timeout_seconds=round(job.resources.timeout_hours * 3600),
                dataset=dataset,
                **_handed(job, sample, evaluate, judge, models),
            ),
            "cpu",
        )
        container = {
            "image_uri": IMAGE,
            "command": ["textdiffusion"],
            "args": ["trial", "--request", planned.outputs["request"]],  # and the service adds --SETTING=VALUE
            "env": options.environment(),
        }
        pool = {
            "machine_spec": machine.spec(),
            "replica_count": 1,
            "disk_spec": {"boot_disk_type": "pd-ssd", "boot_disk_size_gb": options.boot_disk_gb},
            "container_spec": container,
        }
        tuned = run_trials(
            display_name=f"{job.job}-search",
            base_output_directory=f"{work}/trials",
            worker_pool_specs=[pool],
            study_spec_metrics=planned.outputs["metrics"],
            study_spec_parameters=planned.outputs["parameters"],
            max_trial_count=planned.outputs["count"],
            parallel_trial_count=planned.outputs["parallel"],
            max_failed_trial_count=planned.outputs["count"],
            study_spec_measurement_selection_type="LAST_MEASUREMENT",
            location=_placeholders.LOCATION_PLACEHOLDER,
            service_account=options.service_account,
            network=options.network,
            encryption_spec_key_name=options.encryption_key,
        )
        chosen = choose_tuned_step(
            search_config=search, train_config=train, gcp_resources=tuned.outputs["gcp_resources"]
        )
        return place.place(chosen, "cpu").outputs["Output"]

    return find
