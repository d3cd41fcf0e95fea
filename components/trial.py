"""trial: one short training of a hyper-parameter search, and how well it did."""

# mypy: disable-error-code="type-arg, untyped-decorator, assignment"
from typing import Optional  # KFP reads this form, not `| None`

from kfp import dsl

from components.step import component


@component("trial")
def trial(
    modality: str,
    suggestion: str,
    model_config: dict,
    work: str,
    dataset: dsl.Input[dsl.Dataset],
    tried: dsl.Output[dsl.Artifact],
    sample_config: Optional[dict] = None,  # noqa: UP045
    evaluate_config: Optional[dict] = None,  # noqa: UP045
    warm_start: bool = False,
    judge: dsl.Input[dsl.Model] = None,
    autoregressive: dsl.Input[dsl.Model] = None,
) -> None:
    """Trains with the suggested settings. What it is not handed cannot spoil its cache.

    Args:
        modality: images or text.
        suggestion: one of the texts that `suggest` returns.
        model_config: the job's `model` section.
        work: folder or gs:// prefix of checkpoints, as of a training.
        sample_config: the job's `sample` section, where samples are measured.
        evaluate_config: the job's `evaluate` section, where samples are measured.
        warm_start: begin from the autoregressive model.
    """
    import json
    from pathlib import Path

    from components.step import describe, step
    from core.printable import printable_json, say
    from core.requests import modality_name
    from factory.trial import TrialRequest, run_trial

    with step():
        settings = json.loads(suggestion)
        start = Path(autoregressive.path) if autoregressive else None
        facts = run_trial(
            TrialRequest(
                modality=modality_name(modality),
                model=model_config,
                trial=settings,
                dataset=Path(dataset.path),
                out=Path(tried.path),
                work=work or None,
                warm_start=start if warm_start else None,
                sample=sample_config or {},
                evaluate=evaluate_config or {},
                judge=Path(judge.path) if judge else None,
                autoregressive=start,
            )
        )
        inputs = {"dataset": dataset, "judge": judge, "autoregressive": autoregressive}
        config = {"model": model_config, "train": settings["train"]}
        parents = {name: artifact for name, artifact in inputs.items() if artifact}
        describe(tried, facts, config, parents)
        say(printable_json(json.dumps(facts)), lines=True)
