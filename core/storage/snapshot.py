"""A training in the middle, as a model: a checkpoint's averaged weights with the description stored with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError
from core.names import inside
from core.storage import integrity
from core.storage.checkpoint import CheckpointStore
from core.storage.model_folder import DESCRIPTION, write_weights


def is_checkpoint(uri: str) -> bool:
    """Whether `uri` is a folder of checkpoints, or the manifest of one."""
    return bool(_manifest(uri)) or bool(CheckpointStore(uri).indices())


def write_model(uri: str, folder: Path) -> dict[str, Any]:
    """Writes the newest checkpoint of a training, or the one whose manifest `uri` is, as a model into `folder`.

    Returns:
        what is known of it: `weights_sha256`, `examples_seen`, and `guide_sha256` if it has a guide.

    Raises:
        UserError: there is no whole checkpoint, or it was written without a description of its model.
    """
    chosen = _manifest(uri)
    checkpoint = CheckpointStore(chosen[1]).at(int(chosen[2])) if chosen else CheckpointStore(uri).load()
    if checkpoint is None:
        raise UserError(f"{uri}: no checkpoint there is whole")
    if DESCRIPTION not in checkpoint.files:
        raise UserError(
            f"{uri}: holds no {DESCRIPTION}: it was written by an earlier version; train on to write another"
        )
    weights = checkpoint.tensors.get("best") or checkpoint.tensors["ema"]
    facts = {
        **write_weights(folder, weights, checkpoint.tensors.get("guide")),
        "examples_seen": int(checkpoint.meta["examples_seen"]),
    }
    for name, content in checkpoint.files.items():
        if name.endswith(".json") and name != DESCRIPTION:  # a text model's tokenizer
            storage.write_bytes(inside(folder, name), content)
    integrity.write_json(folder / DESCRIPTION, {**json.loads(checkpoint.files[DESCRIPTION]), **facts})
    return facts


def _manifest(uri: str) -> re.Match[str] | None:
    return re.fullmatch(r"(.+)/manifest-(\d{8})\.json", uri)
