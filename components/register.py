"""register: the challenger becomes a version of the model, and its champion unless it is provisional."""

# mypy: disable-error-code="type-arg, untyped-decorator, assignment"
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
    autoregressive: dsl.Input[dsl.Model] = None,
) -> None:
    """Registers a model, for text together with the autoregressive model.

    Args:
        registry: folder or gs:// prefix.
        model_name: the model that gets a version.
        run: id of this run, for the lineage.
    """
    from components.publish import publish_version
    from components.step import step

    with step():
        parts = {"model": model} | ({"autoregressive": autoregressive} if autoregressive else {})
        publish_version(registry, model_name, run, parts, evaluation, verdict, registered, card)
