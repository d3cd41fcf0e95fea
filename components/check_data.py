"""check-data: whether there is anything new to train on; remember-data: that it was trained on."""

# mypy: disable-error-code="type-arg, untyped-decorator"
from kfp import dsl

from components.step import component


@component("check-data")
def check_data(
    data_config: dict,
    model_config: dict,
    train_config: dict,
    evaluate_config: dict,
    registry: str,
    model_name: str,
    found: dsl.Output[dsl.Artifact],
    autoregressive_config: dict = {},  # noqa: B006 - KFP reads the default from the source
) -> str:
    """Compares the source's files and the configuration with those of the last retraining.

    Args:
        data_config: the job's `data` section.
        model_config: the job's `model` section.
        train_config: the job's `train` section.
        evaluate_config: the job's `evaluate` section.
        registry: folder or gs:// prefix.
        model_name: the model that is retrained.
        autoregressive_config: the job's `autoregressive` section; images have none.

    Returns:
        The fingerprint of the source's files, or skip.
    """
    from pathlib import Path

    from components.step import describe, step
    from core import storage
    from core.printable import say
    from factory import drift
    from factory.lineage import restore_ints

    with step():
        config = {
            "data": data_config,
            "model": model_config,
            "train": train_config,
            "autoregressive": autoregressive_config,
            "evaluate": evaluate_config,
        }
        facts = drift.check(data_config, restore_ints(config), registry, model_name)
        storage.write_json(Path(found.path) / "found.json", facts)
        shown = {key: facts[key] for key in ("decision", "reason", "fingerprint")}
        describe(found, shown, {"data": data_config})
        say(f"{facts['decision']}: {facts['reason']}")
    return facts["fingerprint"] if facts["decision"] == drift.TRAIN else drift.SKIP


@component("remember-data")
def remember_data(registry: str, model_name: str, found: dsl.Input[dsl.Artifact]) -> None:
    """Records what the model was trained and judged on, so that the next retraining can tell what is new.

    Args:
        registry: folder or gs:// prefix.
        model_name: the model that was retrained.
    """
    from datetime import UTC, datetime

    from components.step import step, verified
    from core import storage
    from factory import drift

    with step():
        facts = storage.read_json(storage.join(verified(found), "found.json"))
        drift.remember(facts, datetime.now(UTC).isoformat(timespec="seconds"), registry, model_name)
