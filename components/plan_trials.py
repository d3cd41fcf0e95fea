"""plan-trials: what a Vertex AI hyper-parameter tuning job searches, and what each of its trials is to do."""

# mypy: disable-error-code="type-arg, untyped-decorator, assignment"
from typing import NamedTuple, Optional

from kfp import dsl

from components.step import component


@component("plan-trials")
def plan_trials(
    modality: str,
    search_config: dict,
    model_config: dict,
    train_config: dict,
    work: str,
    timeout_seconds: int,
    dataset: dsl.Input[dsl.Dataset],
    plan: dsl.Output[dsl.Artifact],
    sample_config: Optional[dict] = None,  # noqa: UP045
    evaluate_config: Optional[dict] = None,  # noqa: UP045
    warm_start: bool = False,
    judge: dsl.Input[dsl.Model] = None,
    autoregressive: dsl.Input[dsl.Model] = None,
) -> NamedTuple("Plan", [("request", str), ("metrics", list), ("parameters", list), ("count", int), ("parallel", int)]):  # type: ignore[valid-type]
    """Writes request.json, which each trial reads (`components.tuning`).

    Args:
        modality: images or text.
        search_config: the job's `search` section.
        model_config: the job's `model` section.
        train_config: the job's `train` section.
        work: gs:// prefix of checkpoints.
        timeout_seconds: after so long a trial ends itself: a tuning job has no limit for one.
        sample_config: the job's `sample` section, where samples are measured.
        evaluate_config: the job's `evaluate` section, where samples are measured.
        warm_start: begin from the autoregressive model.

    Returns:
        URI of request.json; metrics and parameters of the study; its trials, and how many of them run at once.
    """
    from pathlib import Path

    from components.step import describe, step
    from components.tuning import study_metrics, study_parameters
    from core import storage
    from factory.lineage import restore_ints

    with step():
        inputs = {"dataset": dataset, "judge": judge, "autoregressive": autoregressive}
        given = {name: artifact for name, artifact in inputs.items() if artifact}
        request = {
            "modality": modality,
            "search": search_config,
            "model": model_config,
            "train": train_config,
            "sample": sample_config,
            "evaluate": evaluate_config,
            "work": work,
            "warm_start": warm_start,
            "timeout_seconds": timeout_seconds,
            "inputs": {name: artifact.uri for name, artifact in given.items()},
        }
        storage.write_json(Path(plan.path) / "request.json", restore_ints(request))
        describe(plan, {}, {"search": search_config, "model": model_config, "train": train_config}, given)
        search = restore_ints(search_config)
        return (
            f"{plan.uri}/request.json",
            study_metrics(search),
            study_parameters(search),
            search["trials"],
            search["parallel"],
        )
