"""A training as a step runs it: checkpoints under a key of what is trained, a model folder at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core import storage
from core.config import TrainConfig, config_hash
from core.names import inside
from core.processes import world as distributed
from core.requests import Facts, TrainRequest
from core.storage import leases, scratches
from core.storage.checkpoint import CheckpointStore
from core.storage.model_folder import DESCRIPTION, WEIGHTS
from core.training.log import write_records
from core.training.loop import fit
from core.training.objective import Objective
from core.training.result import FitResult


@dataclass(frozen=True)
class Recipe:
    """What a modality trains on a request, and how the model is saved.

    Args:
        request: where from and where to; `out` is absent unless the training ends.
        settings: the validated section `train` of the request.
        objective: network and loss.
        identity: what makes this another training, besides settings, data, warm start and code.
        data_sha256: of the data set.
        files: what every checkpoint holds in addition to its tensors, so that it can be read as a model.
        save: (folder, result, facts) writes the model and returns its description.
        facts: facts that the modality adds.
        then: (result) what the result is trained on with afterwards: an objective and its own settings.
        name: of the training, in progress and log.
    """

    request: TrainRequest
    settings: TrainConfig
    objective: Objective
    identity: Mapping[str, Any]
    data_sha256: str
    files: Mapping[str, bytes]
    save: Callable[[Path, FitResult, Facts], Facts]
    facts: Callable[[FitResult], Facts] = lambda result: {}
    then: Callable[[FitResult], tuple[Objective, TrainConfig]] | None = None
    name: str = "train"

    @property
    def key(self) -> str:
        """Of what is trained: equal keys share their checkpoints."""
        start = self.request.warm_start
        return config_hash(
            {
                **self.identity,
                "train": self.settings.model_dump(mode="json"),
                "data": self.data_sha256,
                "warm_start": storage.sha256(start / WEIGHTS) if start else None,
                "code": os.environ.get("TEXTDIFFUSION_CODE_VERSION", "unknown"),
            }
        )


def fit_into(recipe: Recipe) -> Facts:
    """Trains, and writes the model folder `recipe.request.out`; flat facts, the same in every process.

    Raises:
        UserError: the training cannot be done or the model not be written, or another one is in its folder of
            checkpoints; every process raises.
    """
    out, settings, name = recipe.request.out, recipe.settings, recipe.name
    root = inside(recipe.request.work or os.environ.get("TEXTDIFFUSION_WORK") or f"{out}.work", recipe.key)
    with distributed.world() as world, contextlib.ExitStack() as stack:
        scratch: Path = stack.enter_context(scratches.temporary_folder("tensorboard"))
        events = scratch / "tensorboard"
        store = CheckpointStore(root, settings.keep)

        def hold() -> None:
            store.guard = stack.enter_context(leases.only_one(root, f"the folder of {name}'s checkpoints"))

        distributed.by_first(hold, world)
        result = fit(recipe.objective, settings, store, world, name=name, tensorboard=events, beside=recipe.files)
        if recipe.then is not None:
            objective, later = recipe.then(result)
            guard, store = store.guard, CheckpointStore(inside(root, "then"), later.keep)
            store.guard = guard
            result = _after(result, fit(objective, later, store, world, name=name, beside=recipe.files))

        def publish() -> Facts:
            facts = {**_facts(result, settings), "data_sha256": recipe.data_sha256, **recipe.facts(result)}
            with storage.atomic_folder(out, DESCRIPTION) as folder:
                saved = recipe.save(folder, result, facts)
                write_records(result.log, result.previews, folder)
                if events.exists():
                    shutil.copytree(events, folder / "tensorboard")
            return {"parameters": saved["parameters"], "weights_sha256": saved["weights_sha256"], **facts}

        return distributed.by_first(publish, world)


def _after(first: FitResult, second: FitResult) -> FitResult:
    """The result of two trainings, one after the other: the second's model, the log of both."""
    shift = {"examples": first.examples_seen, "seconds": first.seconds}
    rows = [row | {key: row[key] + value for key, value in shift.items() if key in row} for row in second.log]
    return replace(
        second,
        examples_seen=first.examples_seen + second.examples_seen,
        seconds=first.seconds + second.seconds,
        log=first.log + rows,
        previews=first.previews | {f"then-{name}": data for name, data in second.previews.items()},
        skipped_steps=first.skipped_steps + second.skipped_steps,
    )


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
        "train_precision": settings.precision,
        "device": str(result.device),
        **{key: result.machine[key] for key in ("processes", "threads", "processor")},
        "skipped_steps": result.skipped_steps,
    }
