"""train-judge: the model that samples are judged with, trained on real data alone."""

# mypy: disable-error-code="type-arg, untyped-decorator"
from kfp import dsl

from components.step import component


@component("train-judge")
def train_judge(
    modality: str, evaluate_config: dict, dataset: dsl.Input[dsl.Dataset], judge: dsl.Output[dsl.Model]
) -> None:
    """Trains the judge on the real training split.

    Args:
        modality: images or text.
        evaluate_config: the job's `evaluate` section.
    """
    from pathlib import Path

    from components.step import describe, step
    from core.modality import run
    from core.requests import TrainJudgeRequest, modality_name

    with step():
        metadata = run(
            TrainJudgeRequest(
                modality=modality_name(modality),
                evaluate=evaluate_config,
                dataset=Path(dataset.path),
                out=Path(judge.path),
            )
        )
        describe(judge, metadata, {"evaluate": evaluate_config}, {"dataset": dataset})
