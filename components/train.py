"""train: one model. Image jobs train a diffusion model; text jobs train one, and an autoregressive one.

Killed and run again, each goes on from its last checkpoint in `work` (a folder or gs:// prefix; empty: what the
environment variable TEXTDIFFUSION_WORK names).
"""

# mypy: disable-error-code="type-arg, untyped-decorator, assignment"
from kfp import dsl

from components.step import component, variant


@component("train")
def train(
    modality: str,
    model_config: dict,
    train_config: dict,
    work: str,
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    autoregressive: dsl.Input[dsl.Model] = None,
) -> None:
    """Trains a diffusion model, for text from the weights of the autoregressive model if there is one."""
    from pathlib import Path

    from components.nodes import trained
    from components.step import describe, step
    from core.requests import TrainRequest, modality_name

    with step():
        metadata = trained(
            TrainRequest(
                modality=modality_name(modality),
                model=model_config,
                train=train_config,
                dataset=Path(dataset.path),
                out=Path(model.path),
                work=work or None,
                warm_start=Path(autoregressive.path) if autoregressive else None,
            )
        )
        parents = {"dataset": dataset, "autoregressive": autoregressive}
        describe(model, metadata, {"model": model_config, "train": train_config}, parents)


@component("train-autoregressive")
def train_autoregressive(
    modality: str,
    model_config: dict,
    train_config: dict,
    work: str,
    dataset: dsl.Input[dsl.Dataset],
    autoregressive: dsl.Output[dsl.Model],
) -> None:
    """Trains an autoregressive model of text."""
    from pathlib import Path

    from components.nodes import trained
    from components.step import describe, step
    from core.requests import TrainRequest, modality_name

    with step():
        metadata = trained(
            TrainRequest(
                modality=modality_name(modality),
                model=model_config,
                train=train_config,
                dataset=Path(dataset.path),
                out=Path(autoregressive.path),
                objective="autoregressive",
                work=work or None,
            )
        )
        config = {"model": model_config, "autoregressive": train_config}
        describe(autoregressive, metadata, config, {"dataset": dataset})


train_diffusion = variant(train, ["autoregressive"], "train-diffusion")
