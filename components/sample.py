"""sample: draws samples from a trained model; for text, from the diffusion model, the autoregressive one and both."""

# mypy: disable-error-code="type-arg, untyped-decorator, assignment"
from kfp import dsl

from components.step import component


@component("sample")
def sample(
    modality: str,
    sample_config: dict,
    model: dsl.Input[dsl.Model],
    samples: dsl.Output[dsl.Artifact],
    autoregressive: dsl.Input[dsl.Model] = None,
) -> None:
    """Draws samples.

    Args:
        modality: images or text.
        sample_config: the job's `sample` section.
    """
    from pathlib import Path

    from components.step import describe, step
    from core.modality import run
    from core.requests import SampleRequest, modality_name

    with step():
        metadata = run(
            SampleRequest(
                modality=modality_name(modality),
                sample=sample_config,
                model=Path(model.path),
                out=Path(samples.path),
                autoregressive=Path(autoregressive.path) if autoregressive else None,
            )
        )
        parents = {"model": model, "autoregressive": autoregressive}
        describe(samples, metadata, {"sample": sample_config}, parents)
