"""A training step on several nodes of a Kubernetes cluster: what is ordered, what each node does, what comes back.

Nodes are other pods than the step's own, so all goes through the prefix of checkpoints, which pods reach anyway:

    WORK/.nodes/KEY/   request.json  dataset/  warm_start/  ready.json      written by the step
                       model/  complete.json  or  refused.txt               written by the nodes

KEY is a hash of all that the training depends on: a step that is begun again meets its own order, and the TrainJob of
that name. components/trainer.py starts and watches it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from components.step import TRAIN_JOB
from core import jsontext, storage
from core.errors import UserError
from core.modality import run
from core.names import inside
from core.processes.accelerators import require_gpus
from core.requests import Facts, TrainRequest, parse_request
from core.storage import scratches
from core.storage.faults import StorageError
from core.storage.integrity import digest, files_sha256
from core.storage.leases import only_one
from core.storage.locks import LockedError

REQUEST, READY, COMPLETE, REFUSED, MODEL = "request.json", "ready.json", "complete.json", "refused.txt", "model"
_INPUTS = ("dataset", "warm_start")


def trained(request: TrainRequest) -> Facts:
    """What `run` answers to a training: here, or on the nodes of a TrainJob where the step was compiled for several.

    Raises:
        UserError: the nodes refused it, or the cluster does; with exit code 1, it failed after all restarts.
    """
    template = os.environ.get(TRAIN_JOB, "")
    if not template:
        return run(request)
    from components.trainer import train_on_nodes

    if not request.work:
        raise UserError("train: several nodes need a prefix of checkpoints that all of them reach")
    key = _key(request)
    order = inside(storage.join(request.work, ".nodes"), key)
    if not storage.is_remote(order):
        Path(order).mkdir(parents=True, exist_ok=True)
    with only_one(order, "the training on nodes"):
        _place(request, order)
        if not _finished(order):
            job = jsontext.parse(template.encode(), TRAIN_JOB)
            train_on_nodes(
                job, f"train-{key}", order, refusal=lambda: _refusal(order), finished=lambda: _finished(order)
            )
        facts = storage.read_json(storage.join(order, COMPLETE))
        storage.copy_tree(storage.join(order, MODEL), request.out)
        for name in (COMPLETE, READY, REQUEST, MODEL, *_INPUTS):  # what says that it is complete goes first
            storage.remove(inside(order, name))
    return dict(facts)


def _key(request: TrainRequest) -> str:
    content = request.model_dump(mode="json", exclude={*_INPUTS, "out"})
    hashes = {name: files_sha256(path) for name in _INPUTS if (path := getattr(request, name)) is not None}
    return digest({**content, **hashes})[:16]


def _place(request: TrainRequest, order: str) -> None:
    """Copies what the nodes need, unless an earlier try of the same step did."""
    storage.remove(storage.join(order, REFUSED))
    if storage.exists(storage.join(order, READY)):
        return
    for name in _INPUTS:
        if (path := getattr(request, name)) is not None:
            storage.copy_tree(path, inside(order, name))
    changed = {"dataset": Path("dataset"), "out": Path(MODEL)}
    changed |= {"warm_start": Path("warm_start")} if request.warm_start else {}
    storage.write_bytes(storage.join(order, REQUEST), request.model_copy(update=changed).model_dump_json().encode())
    storage.write_json(storage.join(order, READY), {"ready": True})


def _finished(order: str) -> bool:
    return storage.exists(storage.join(order, COMPLETE))


def _refusal(order: str) -> str:
    """Why a node refused the training; empty if none did."""
    try:
        return storage.read_bytes(storage.join(order, REFUSED), limit=10_000).decode(errors="replace")
    except UserError as error:
        if isinstance(error, StorageError):
            raise
        return ""


def train_node(order: str) -> dict[str, Any]:
    """What each node of the TrainJob does: fetches the order, trains with the others, publishes if it has the model.

    Raises:
        UserError: the order cannot be done. If no later try could either, the order says so too.
    """
    if text := _refusal(order):
        raise UserError(f"refused before this node was started again: {text}")
    if _finished(order):
        return dict(storage.read_json(storage.join(order, COMPLETE)))
    try:
        require_gpus()
        return _train_here(order)
    except UserError as error:
        passing = isinstance(error, StorageError | LockedError) or error.EXIT_CODE != UserError.EXIT_CODE
        if not passing:
            storage.write_bytes(storage.join(order, REFUSED), str(error).encode())
        raise


def _train_here(order: str) -> Facts:
    request = parse_request(storage.read_bytes(storage.join(order, REQUEST)).decode())
    if not isinstance(request, TrainRequest):
        raise UserError(f"{order}: is no order of a training")
    with scratches.temporary_folder("node") as folder:
        paths: dict[str, Path] = {name: inside(folder, name) for name in (*_INPUTS, "out")}
        for name in _INPUTS:
            if getattr(request, name) is not None:
                storage.copy_tree(inside(order, name), paths[name])
        if request.warm_start is None:
            del paths["warm_start"]
        facts = run(request.model_copy(update=paths))
        if paths["out"].exists():  # on the node of the first process alone
            storage.copy_tree(paths["out"], storage.join(order, MODEL))
            storage.write_json(storage.join(order, COMPLETE), facts)
    return facts
