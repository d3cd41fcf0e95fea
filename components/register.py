"""register: the challenger becomes a version of the model and its champion."""

# mypy: disable-error-code="type-arg, untyped-decorator"
from kfp import dsl

from components.step import component


@component("register")
def register(
    registry: str,
    model_name: str,
    run: str,
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    verdict: dsl.Input[dsl.Artifact],
    registered: dsl.Output[dsl.Artifact],
    card: dsl.Output[dsl.Markdown],
) -> None:
    """Registers a model.

    Args:
        registry: folder or gs:// prefix.
        model_name: the model that gets a version.
        run: id of this run, for the lineage.
    """
    from components.publish import publish_version
    from components.step import step

    with step():
        parts = {"model": model}
        publish_version(registry, model_name, run, parts, evaluation, verdict, registered, card)


@component("register")
def register_text(
    registry: str,
    model_name: str,
    run: str,
    model: dsl.Input[dsl.Model],
    autoregressive: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    verdict: dsl.Input[dsl.Artifact],
    registered: dsl.Output[dsl.Artifact],
    card: dsl.Output[dsl.Markdown],
) -> None:
    """Registers a diffusion model of text with the autoregressive model beside it."""
    from components.publish import publish_version
    from components.step import step

    with step():
        parts = {"model": model, "autoregressive": autoregressive}
        publish_version(registry, model_name, run, parts, evaluation, verdict, registered, card)
