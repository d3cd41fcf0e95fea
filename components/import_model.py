"""import-model: a registered model, or a model folder anywhere, as the artifact that sampling starts from."""

# mypy: disable-error-code="type-arg, untyped-decorator"
from kfp import dsl

from components.step import component


@component("import-model")
def import_model(registry: str, source_config: dict, model: dsl.Output[dsl.Model]) -> None:
    """Finds the model that `source` names and verifies it.

    Args:
        registry: folder or gs:// prefix.
        source_config: the job's `source` section.
    """
    from components.publish import adopt
    from components.step import step

    with step():
        adopt(registry, source_config["model"], "model", model)


@component("import-model")
def import_model_text(
    registry: str, source_config: dict, model: dsl.Output[dsl.Model], autoregressive: dsl.Output[dsl.Model]
) -> None:
    """Finds the diffusion model and the autoregressive model that `source` names and verifies them.

    Args:
        registry: folder or gs:// prefix.
        source_config: the job's `source` section.
    """
    from components.publish import adopt
    from components.step import step

    with step():
        adopt(registry, source_config["model"], "model", model)
        adopt(registry, source_config.get("autoregressive") or source_config["model"], "autoregressive", autoregressive)
