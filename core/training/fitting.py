"""A training as a step runs it: checkpoints found by a key of what is trained, a model folder at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core import storage
from core.config import TrainConfig, config_hash
from core.names import inside
from core.processes import world as distributed
from core.storage import leases
from core.storage.checkpoint import CheckpointStore
from core.storage.model_folder import WEIGHTS
from core.training.log import write_records
from core.training.loop import FitResult, fit
from core.training.objective import Objective

Facts = dict[str, Any]


def fit_into(
    out: Path,
    goal: Objective,
    settings: TrainConfig,
    save: Callable[[Path, FitResult, Facts], Facts],
    *,
    data_sha256: str,
    identity: Mapping[str, Any],
    beside: Mapping[str, bytes],
    work: str | None,
    warm_start: Path | None,
    name: str = "train",
    more: Callable[[FitResult], Facts] = lambda result: {},
) -> Facts:
    """Trains `goal` and writes the model folder `out`; flat facts, the same in every process.

    Args:
        out: model folder; absent unless the training ends.
        goal: what is trained.
        settings: how.
        save: (folder, result, facts) writes the model and returns its description.
        data_sha256: of the data set.
        identity: what makes this another training, besides settings, data, warm start and code.
        beside: files that every checkpoint holds, so that it can be read as a model.
        work: where checkpoints go, under a key of what is trained; defaults to TEXTDIFFUSION_WORK, then to a folder
            beside `out`.
        warm_start: the model folder that training begins from.
        name: of the training, in progress and log.
        more: facts that the modality adds.

    Raises:
        UserError: the training cannot be done or the model not be written, or another one is in its folder of
            checkpoints; every process raises.
    """
    key = config_hash(
        {
            **identity,
            "train": settings.model_dump(mode="json"),
            "data": data_sha256,
            "warm_start": storage.sha256(warm_start / WEIGHTS) if warm_start else None,
            "code": os.environ.get("TEXTDIFFUSION_CODE_VERSION", "unknown"),
        }
    )
    root = inside(work or os.environ.get("TEXTDIFFUSION_WORK") or f"{out}.work", key)
    events = out.with_name(f".{out.name}.tensorboard")
    with distributed.world() as world, contextlib.ExitStack() as stack:
        store = CheckpointStore(root, settings.keep)

        def hold() -> None:
            store.guard = stack.enter_context(leases.only_one(root, f"the folder of {name}'s checkpoints"))

        distributed.by_first(hold, world)
        result = fit(goal, settings, store, world, name=name, tensorboard=events, beside=beside)

        def publish() -> Facts:
            facts = {**_facts(result, settings), "data_sha256": data_sha256, **more(result)}
            with storage.atomic_folder(out) as folder:
                saved = save(folder, result, facts)
                write_records(result.log, result.previews, folder)
                if events.exists():
                    shutil.move(str(events), folder / "tensorboard")
            return {"parameters": saved["parameters"], "weights_sha256": saved["weights_sha256"], **facts}

        return distributed.by_first(publish, world)


def _facts(result: FitResult, settings: TrainConfig) -> Facts:
    """What is worth knowing about a training, flat."""
    validations = [row["validation"]["loss"] for row in result.log if "validation" in row]
    return {
        "examples_seen": result.examples_seen,
        "train_seconds": round(result.seconds, 1),
        "examples_per_second": round(result.examples_seen / max(result.seconds, 1e-9), 1),
        "validation_loss": round(validations[-1], 6) if validations else None,
        "effective_batch_size": settings.batch_size,
        "seed": settings.seed,
        "precision": result.precision.reason,
        "device": str(result.device),
        "processes": result.processes,
        "skipped_steps": result.skipped_steps,
    }
