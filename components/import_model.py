"""import-model: a registered model, or a model folder anywhere, as the artifact that sampling starts from."""

# mypy: disable-error-code="type-arg, untyped-decorator, assignment"
from kfp import dsl

from components.step import component


@component("import-model")
def import_model(
    registry: str,
    source_config: dict,
    model: dsl.Output[dsl.Model],
    autoregressive: dsl.Output[dsl.Model] = None,
) -> None:
    """Finds the model that `source` names, for text the autoregressive model too, and verifies them.

    Args:
        registry: folder or gs:// prefix.
        source_config: the job's `source` section.
    """
    from components.publish import adopt
    from components.step import step

    with step():
        source = source_config["model"]
        adopt(registry, source, "model", model)
        if autoregressive:
            adopt(registry, source_config.get("autoregressive") or source, "autoregressive", autoregressive)
