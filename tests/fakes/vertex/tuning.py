"""Hyper-parameter tuning jobs: checked and kept as custom jobs are; the settings that their trials try."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.cloud import aiplatform_v1 as v1

from tests.fakes import unprivileged
from tests.fakes.vertex import launcher
from tests.fakes.vertex.errors import invalid, not_found
from tests.fakes.vertex.filters import listed
from tests.fakes.vertex.jobs import JobService, Numbers, now

MODULE = launcher.TUNING
_SPECS = ("double_value_spec", "integer_value_spec", "discrete_value_spec", "categorical_value_spec")


class TuningService:
    """`projects.locations.hyperparameterTuningJobs`; whoever runs the trials tells it of each."""

    def __init__(self, jobs: JobService) -> None:
        self.jobs: dict[str, v1.HyperparameterTuningJob] = {}
        self._custom_jobs = jobs
        self._number = Numbers(7_000_000_000_000_000_001)

    def create_hyperparameter_tuning_job(
        self, request: v1.CreateHyperparameterTuningJobRequest
    ) -> v1.HyperparameterTuningJob:
        job = request.hyperparameter_tuning_job
        if not job.display_name:
            raise invalid("hyperparameter_tuning_job.display_name is required.")
        if job.max_trial_count < 1 or job.parallel_trial_count < 1:
            raise invalid("max_trial_count and parallel_trial_count must be at least 1.")
        metrics = job.study_spec.metrics
        if not metrics or any(not one.metric_id or not one.goal for one in metrics):
            raise invalid("study_spec.metrics needs a metric_id and a goal each.")
        if not job.study_spec.parameters:
            raise invalid("study_spec.parameters is required.")
        for parameter in job.study_spec.parameters:
            _check_parameter(parameter)
        self._custom_jobs.check_pools(job.trial_job_spec.worker_pool_specs)
        if not job.trial_job_spec.base_output_directory.output_uri_prefix.startswith("gs://"):
            raise invalid("trial_job_spec.base_output_directory is required.")
        job.name = f"{request.parent}/hyperparameterTuningJobs/{self._number()}"
        job.state = v1.JobState.JOB_STATE_RUNNING
        job.create_time = job.start_time = job.update_time = now()
        self.jobs[job.name] = job
        return job

    def get_hyperparameter_tuning_job(
        self, request: v1.GetHyperparameterTuningJobRequest
    ) -> v1.HyperparameterTuningJob:
        if request.name not in self.jobs:
            raise not_found(request.name)
        return self.jobs[request.name]

    def list_hyperparameter_tuning_jobs(
        self, request: v1.ListHyperparameterTuningJobsRequest
    ) -> v1.ListHyperparameterTuningJobsResponse:
        found, token = listed(self.jobs.values(), request)
        return v1.ListHyperparameterTuningJobsResponse(hyperparameter_tuning_jobs=found, next_page_token=token)

    def trial(self, name: str, facts: dict[str, Any]) -> None:
        """One trial has ended: {"id", "parameters", "measured": {metric: value} or empty, "began", "error"}."""
        job = self.jobs[name]
        done = bool(facts["measured"])
        job.trials.append(
            v1.Trial(
                id=str(facts["id"]),
                state=v1.Trial.State.SUCCEEDED if done else v1.Trial.State.INFEASIBLE,
                parameters=[
                    v1.Trial.Parameter(parameter_id=key, value=value) for key, value in facts["parameters"].items()
                ],
                final_measurement=v1.Measurement(
                    metrics=[v1.Measurement.Metric(metric_id=k, value=v) for k, v in facts["measured"].items()]
                ),
                start_time=job.update_time,
                end_time=now(),
                infeasible_reason=facts["error"],
            )
        )
        job.update_time = now()

    def finish(self, name: str, state: v1.JobState) -> None:
        job = self.jobs[name]
        job.state, job.end_time, job.update_time = state, now(), now()


def _check_parameter(parameter: Any) -> None:
    kind = v1.StudySpec.ParameterSpec.pb(parameter).WhichOneof("parameter_value_spec")
    if not parameter.parameter_id or kind not in _SPECS:
        raise invalid("study_spec.parameters needs a parameter_id and a value spec each.")
    if kind in ("double_value_spec", "integer_value_spec"):
        spec = getattr(parameter, kind)
        if spec.min_value > spec.max_value:
            raise invalid(f"{parameter.parameter_id}: min_value is above max_value.")
        if parameter.scale_type == v1.StudySpec.ParameterSpec.ScaleType.UNIT_LOG_SCALE and spec.min_value <= 0:
            raise invalid(f"{parameter.parameter_id}: a log scale needs a min_value above 0.")
    elif not list(getattr(parameter, kind).values):
        raise invalid(f"{parameter.parameter_id}: values is empty.")


def suggestions(study: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """What the trials of a study (its JSON as the service answers) try: points of a Halton sequence."""
    for number in range(1, count + 1):
        yield {
            parameter["parameterId"]: _value(parameter, _radical_inverse(number, base))
            for parameter, base in zip(study["parameters"], (2, 3, 5), strict=False)
        }


def _value(parameter: dict[str, Any], place: float) -> Any:
    for kind in ("categoricalValueSpec", "discreteValueSpec"):
        if kind in parameter:
            values = parameter[kind]["values"]
            return values[int(place * len(values))]
    counted = "integerValueSpec" in parameter
    spec = parameter["integerValueSpec" if counted else "doubleValueSpec"]
    low, high = float(spec.get("minValue", 0)), float(spec["maxValue"])
    if parameter.get("scaleType") == "UNIT_LOG_SCALE":
        value = math.exp(math.log(low) + place * (math.log(high) - math.log(low)))
    else:
        value = low + place * (high - low)
    return round(value) if counted else value


def _radical_inverse(number: int, base: int) -> float:
    value, scale = 0.0, 1.0
    while number:
        scale /= base
        number, digit = divmod(number, base)
        value += digit * scale
    return value


class Trials:
    """Runs the trials of a tuning job that a step launched, one after the other.

    Args:
        step: the launcher's step (`tests.fakes.vertex.step.Step`).
        made: the tuning job as the service answered.
    """

    def __init__(self, step: Any, made: dict[str, Any]) -> None:
        self._step, self._made = step, made

    def run(self) -> int:
        """How many trials failed."""
        made, failed = self._made, 0
        spec = made["trialJobSpec"]
        program = spec["workerPoolSpecs"][0]["containerSpec"]
        command = [*program.get("command", []), *program.get("args", [])]
        given = {item["name"]: item.get("value", "") for item in program.get("env", [])}
        base = spec["baseOutputDirectory"]["outputUriPrefix"].rstrip("/")
        goals = [one["metricId"] for one in made["studySpec"]["metrics"]]
        for number, settings in enumerate(suggestions(made["studySpec"], made["maxTrialCount"]), start=1):
            with tempfile.TemporaryDirectory(prefix="vertex-trial-") as folder:
                Path(folder).chmod(0o755)
                file = Path(folder, "hypertune", "output.metrics")  # the service's folder is open to root alone
                file.parent.mkdir(mode=0o755)
                file.parent.chmod(0o755 if unprivileged.possible() else 0o555)
                environment = {
                    **given,
                    "CLOUD_ML_TRIAL_ID": str(number),
                    "CLOUD_ML_HP_METRIC_FILE": str(file),
                    "AIP_MODEL_DIR": f"{base}/{number}/model/",
                }
                arguments = [f"--{name}={value}" for name, value in settings.items()]
                image = program["imageUri"]
                code = self._step.spawn_program([*command, *arguments], environment, made["name"], image)
                last = json.loads(file.read_text().strip().split("\n")[-1]) if file.exists() else {}
            measured = {name: float(last[name]) for name in goals if name in last} if code == 0 else {}
            failed += not measured
            error = "" if measured else f"The trial exited with status {code} and reported no metric."
            facts = {"id": number, "parameters": settings, "measured": measured, "error": error}
            self._step.runner.report("trial", job=made["name"], facts=facts)
        return failed
