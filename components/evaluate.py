"""evaluate: measures samples against real data, each metric with its floor; metrics and a report for the console."""

# mypy: disable-error-code="type-arg, untyped-decorator, assignment"
from kfp import dsl

from components.step import component


@component("evaluate")
def evaluate(
    modality: str,
    evaluate_config: dict,
    dataset: dsl.Input[dsl.Dataset],
    judge: dsl.Input[dsl.Model],
    model: dsl.Input[dsl.Model],
    samples: dsl.Input[dsl.Artifact],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    autoregressive: dsl.Input[dsl.Model] = None,
    classification: dsl.Output[dsl.ClassificationMetrics] = None,
) -> None:
    """Measures images or texts.

    Args:
        modality: images or text.
        evaluate_config: the job's `evaluate` section.
    """
    from pathlib import Path

    import report as reports
    from components.publish import publish_metrics
    from components.step import describe, step, verified
    from core.modality import run
    from core.requests import EvaluateRequest, modality_name

    with step():
        inputs = {"dataset": dataset, "judge": judge, "model": model, "samples": samples}
        inputs |= {"autoregressive": autoregressive} if autoregressive else {}
        paths: dict = {name: Path(artifact.path) for name, artifact in inputs.items()}
        for artifact in (judge, samples):
            verified(artifact)
        out = Path(evaluation.path)
        metadata = run(EvaluateRequest(modality=modality_name(modality), evaluate=evaluate_config, **paths, out=out))
        describe(evaluation, metadata, {"evaluate": evaluate_config}, inputs)
        publish_metrics(out, metrics, classification)
        reports.build(Path(report.path), **paths, evaluation=out)
