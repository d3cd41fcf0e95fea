"""gate: says whether the challenger is promoted, provisional or refused (keep), and why."""

# mypy: disable-error-code="type-arg, untyped-decorator"
from kfp import dsl

from components.step import component


@component("gate")
def gate(
    modality: str,
    gate_config: dict,
    sample_config: dict,
    evaluate_config: dict,
    registry: str,
    model_name: str,
    dataset: dsl.Input[dsl.Dataset],
    judge: dsl.Input[dsl.Model],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    verdict: dsl.Output[dsl.Artifact],
) -> str:
    """Decides.

    Args:
        modality: images or text.
        gate_config: the job's `gate` section.
        sample_config: the job's `sample` section, for a champion that has to be measured again.
        evaluate_config: the job's `evaluate` section.
        registry: folder or gs:// prefix.
        model_name: the registered model whose champion is challenged.

    Returns:
        promote, provisional (register, but do not serve) or keep (the champion stays).
    """
    import tempfile
    from pathlib import Path

    from components.step import describe, step, verified
    from core.config import GateConfig, validate
    from core.printable import say
    from core.requests import modality_name
    from factory.gate import Challenge, compare
    from factory.registry import Registry

    with step(), tempfile.TemporaryDirectory() as scratch:
        inputs = {"dataset": dataset, "judge": judge, "model": model, "evaluation": evaluation}
        decided = compare(
            validate(GateConfig, gate_config, "gate"),
            Challenge(
                modality_name(modality),
                model=Path(model.path),
                evaluation=verified(evaluation),
                dataset=Path(dataset.path),
                judge=verified(judge),
                sample=sample_config,
                evaluate=evaluate_config,
            ),
            Registry(registry).champion(model_name),
            Path(scratch),
        )
        decided.write(Path(verdict.path))
        describe(verdict, decided.facts(), {"gate": gate_config}, inputs)
        say(f"{decided.outcome}: {decided.reason}")
    return str(decided.decision)
