"""Hyper-parameter search: trials before the training.

    local, Kubeflow   ... -> suggest -> for each suggestion: trial -> choose -> train -> sample -> ...
    Vertex            ... -> plan-trials -> trials (a hyper-parameter tuning job) -> choose -> train -> ...

The trials are short trainings; `choose` gives the winner's settings to the one training in full, whose model meets the
same gate as any other.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl

from components.choose import choose
from components.plan_trials import plan_trials
from components.step import IMAGE, TRIALS_IMAGE
from components.suggest import suggest
from components.trial import trial
from factory.job import ImageTrainingJob, TextTrainingJob
from factory.search import VALIDATION_LOSS
from pipelines.costs import TRIALS
from pipelines.placement import Placement

Search = Callable[[Any, Any, Mapping[str, Any]], Any]
"""(search, train, inputs of a training and of its evaluation) -> the `train` section to use; called in a pipeline."""


def define_search(job: ImageTrainingJob | TextTrainingJob, place: Placement) -> Search:
    """The search of a job that has a section `search`. Call this outside of a pipeline."""
    return _tuning_job(job, place) if place.target == "vertex" else _loop(job, place)


def _needed(job: ImageTrainingJob | TextTrainingJob, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that trials of this job need: what they are not handed cannot spoil their cache."""
    assert job.search is not None
    measured, warm = job.search.metric != VALIDATION_LOSS, isinstance(job, TextTrainingJob) and job.warm_start
    spared = set() if measured else {"sample_config", "evaluate_config", "judge"}
    spared |= set() if measured or warm else {"autoregressive"}
    needed = {name: value for name, value in inputs.items() if name not in spared}
    return needed | ({"warm_start": warm} if "autoregressive" in needed else {})


def _loop(job: ImageTrainingJob | TextTrainingJob, place: Placement) -> Search:
    """A search whose trials are steps."""
    assert job.search is not None
    parallel = job.search.parallel

    def search_step(search: Any, train: Any, inputs: Mapping[str, Any]) -> Any:
        suggested = place.step(suggest, search_config=search, train_config=train)
        with dsl.ParallelFor(suggested.output, name="for-each-suggestion", parallelism=parallel) as suggestion:
            tried = place.step(trial, suggestion=suggestion, **_needed(job, inputs))
        trials = dsl.Collected(tried.outputs["tried"])
        return place.step(choose, search_config=search, train_config=train, trials=trials).outputs["Output"]

    return search_step


def _limit(run_trials: Any, seconds: int) -> None:
    """Puts into the launcher's payload how long a trial may take, restarts included, and that a trial which failed is
    not started again; the component has no parameters for that."""
    head, scheduling = ', "trial_job_spec": {', f'"scheduling": {{"timeout": "{seconds}s", "disable_retries": true}}, '
    (payload,) = (part for part in run_trials.component_spec.implementation.container.args if hasattr(part, "items"))
    payload.items[payload.items.index(head)] = head + scheduling


def _tuning_job(job: ImageTrainingJob | TextTrainingJob, place: Placement) -> Search:
    """A search that Vertex AI conducts: one hyper-parameter tuning job, whose trials are containers of their own."""
    from google_cloud_pipeline_components import _placeholders
    from google_cloud_pipeline_components.v1.hyperparameter_tuning_job import HyperparameterTuningJobRunOp

    run_trials = copy.deepcopy(HyperparameterTuningJobRunOp)
    _limit(run_trials, round(job.resources.timeout_hours * 3600))
    run_trials.name = run_trials.component_spec.name = TRIALS
    machine, options = place.machine("train"), place.options

    def search_step(search: Any, train: Any, inputs: Mapping[str, Any]) -> Any:
        planned = place.step(
            plan_trials,
            search_config=search,
            train_config=train,
            timeout_seconds=round(job.resources.timeout_hours * 3600),
            **_needed(job, inputs),
        )
        container = {
            "image_uri": f"{IMAGE}{TRIALS_IMAGE}",
            "command": ["textdiffusion"],
            "args": ["trial", "--request", planned.outputs["request"]],  # and the service adds --SETTING=VALUE
            "env": options.environment(machine),
        }
        pool = {
            "machine_spec": machine.spec(),
            "replica_count": 1,
            "disk_spec": {"boot_disk_type": "pd-ssd", "boot_disk_size_gb": options.boot_disk_gb},
            "container_spec": container,
        }
        tuned = run_trials(
            display_name=f"{job.job}-search",
            base_output_directory=f"{inputs['work']}/trials",
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
        resources = tuned.outputs["gcp_resources"]
        chosen = place.step(choose, search_config=search, train_config=train, gcp_resources=resources)
        return chosen.outputs["Output"]

    return search_step
