"""Hyper-parameter search: the job's own pipeline with trials before the training.

    local, Kubeflow   ... -> suggest -> for each suggestion: trial -> choose -> train -> sample -> ...
    Vertex            ... -> plan-trials -> trials (a hyper-parameter tuning job) -> choose -> train -> ...

The trials are short trainings; `choose` gives the winner's settings to the one training in full, whose model meets the
same gate as any other.
"""

# mypy: disable-error-code="type-arg, untyped-decorator"
import copy
from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.choose import choose as choose_step
from components.choose import choose_tuned as choose_tuned_step
from components.plan_trials import plan_trials as plan_trials_step
from components.prepare_data import prepare_data as prepare_data_step
from components.step import IMAGE
from components.suggest import suggest as suggest_step
from components.train import train as train_step
from components.train import train_autoregressive as train_autoregressive_step
from components.train import train_diffusion as train_diffusion_step
from components.train import train_diffusion_warm as train_diffusion_warm_step
from components.train_judge import train_judge as train_judge_step
from components.trial import trial as trial_step
from core.job import ImageTrainingJob, TextTrainingJob
from core.search import VALIDATION_LOSS
from pipelines.costs import TRIALS
from pipelines.definitions import Placement, finish

Search = Callable[..., Any]


def define_search(job: ImageTrainingJob | TextTrainingJob, place: Placement) -> Any:
    """The pipeline of a job that has a section `search`, ready to be compiled."""
    search = _tuning_job(job, place) if place.target == "vertex" else _loop(job, place)
    return _images(job, place, search) if isinstance(job, ImageTrainingJob) else _text(job, place, search)


def _images(job: ImageTrainingJob, place: Placement, find: Search) -> Any:
    train_component = place.training(train_step)

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
        prepared = place.place(
            prepare_data_step(modality="images", data_config=data, data_fingerprint=data_fingerprint), "cpu"
        )
        dataset = prepared.outputs["dataset"]
        judged = place.place(train_judge_step(modality="images", evaluate_config=evaluate, dataset=dataset), "sample")
        judge = judged.outputs["judge"]
        chosen = find(search, model, train, sample, evaluate, work, dataset, judge)
        trained = place.trained(
            train_component(
                modality="images",
                model_config=model,
                train_config=chosen.outputs["Output"],
                work=work,
                dataset=dataset,
            )
        )
        models = {"model": trained.outputs["model"]}
        finish(place, "images", models, dataset, judge, sample, evaluate, gate, registry, model_name, run)

    return images_search


def _text(job: TextTrainingJob, place: Placement, find: Search) -> Any:
    warm = job.warm_start
    diffusion_component = place.training(train_diffusion_warm_step if warm else train_diffusion_step)
    autoregressive_component = place.training(train_autoregressive_step)

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
        prepared = place.place(
            prepare_data_step(modality="text", data_config=data, data_fingerprint=data_fingerprint), "cpu"
        )
        dataset = prepared.outputs["dataset"]
        judged = place.place(train_judge_step(modality="text", evaluate_config=evaluate, dataset=dataset), "sample")
        judge = judged.outputs["judge"]
        settings = {"modality": "text", "model_config": model, "work": work, "dataset": dataset}
        control = place.trained(autoregressive_component(train_config=autoregressive, **settings))
        models = {"autoregressive": control.outputs["autoregressive"]}
        start = models if warm else {}
        chosen = find(search, model, train, sample, evaluate, work, dataset, judge, **models)
        trained = place.trained(diffusion_component(train_config=chosen.outputs["Output"], **settings, **start))
        models["model"] = trained.outputs["model"]
        finish(place, "text", models, dataset, judge, sample, evaluate, gate, registry, model_name, run)

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


def _loop(job: ImageTrainingJob | TextTrainingJob, place: Placement) -> Search:
    """A search whose trials are steps."""
    settings = job.search
    assert settings is not None

    def find(search: Any, model: Any, train: Any, sample: Any, evaluate: Any, work: Any, dataset: Any, judge: Any,
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
        return place.place(choose_step(search_config=search, train_config=train, trials=trials), "cpu")

    return find


def _tuning_job(job: ImageTrainingJob | TextTrainingJob, place: Placement) -> Search:
    """A search that Vertex AI conducts: one hyper-parameter tuning job, whose trials are containers of their own."""
    from google_cloud_pipeline_components import _placeholders
    from google_cloud_pipeline_components.v1.hyperparameter_tuning_job import HyperparameterTuningJobRunOp

    run_trials = copy.deepcopy(HyperparameterTuningJobRunOp)
    run_trials.name = run_trials.component_spec.name = TRIALS
    machine, options = place.machine("train"), place.options
    shape: dict[str, Any] = {"machine_type": machine.machine_type}
    if machine.accelerator_type:
        shape |= {"accelerator_type": machine.accelerator_type, "accelerator_count": machine.accelerator_count}
    environment = {"TEXTDIFFUSION_IMAGE": IMAGE, **options.env}

    def find(search: Any, model: Any, train: Any, sample: Any, evaluate: Any, work: Any, dataset: Any, judge: Any,
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
            "env": [{"name": name, "value": value} for name, value in environment.items()],
        }
        pool = {
            "machine_spec": shape,
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
        return place.place(chosen, "cpu")

    return find
