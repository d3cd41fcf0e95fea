"""sample: draws samples from a trained model; for text, from the diffusion model, the autoregressive one and both."""

# mypy: disable-error-code="type-arg, untyped-decorator"
from kfp import dsl

from components.step import component


@component("sample")
def sample(modality: str, sample_config: dict, model: dsl.Input[dsl.Model], samples: dsl.Output[dsl.Artifact]) -> None:
    """Draws images.

    Args:
        modality: images.
        sample_config: the job's `sample` section.
    """
    from pathlib import Path

    from components.step import describe, step
    from core import steps

    with step():
        metadata = steps.sample(modality, sample_config, Path(model.path), Path(samples.path))
        describe(samples, metadata, {"sample": sample_config}, {"model": model})


@component("sample")
def sample_text(
    modality: str,
    sample_config: dict,
    model: dsl.Input[dsl.Model],
    autoregressive: dsl.Input[dsl.Model],
    samples: dsl.Output[dsl.Artifact],
) -> None:
    """Draws texts.

    Args:
        modality: text.
        sample_config: the job's `sample` section.
    """
    from pathlib import Path

    from components.step import describe, step
    from core import steps

    with step():
        metadata = steps.sample(
            modality,
            sample_config,
            Path(model.path),
            Path(samples.path),
            autoregressive=Path(autoregressive.path),
        )
        parents = {"model": model, "autoregressive": autoregressive}
        describe(samples, metadata, {"sample": sample_config}, parents)
