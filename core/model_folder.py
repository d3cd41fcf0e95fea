"""What every trained model is on disk: weights and a description, in safetensors and JSON.

<folder>/weights.safetensors   averaged weights
<folder>/model.json            what is needed to rebuild the network, the weights' SHA-256, and where it came from
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from core import storage
from core.checkpoint import deserialize, serialize
from core.errors import UserError

WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"
MAX_WEIGHT_BYTES = 16 << 30


def write_model(folder: Path, network: nn.Module, description: Mapping[str, Any]) -> dict[str, Any]:
    """Writes both files into `folder`; returns the description as it was written."""
    data = serialize(network.state_dict())
    whole = {
        **description,
        "parameters": sum(p.numel() for p in network.parameters()),
        "weights_sha256": hashlib.sha256(data).hexdigest(),
    }
    storage.write_bytes(folder / WEIGHTS, data)
    storage.write_json(folder / DESCRIPTION, whole)
    return whole


def read_description(folder: str | Path, modality: str) -> dict[str, Any]:
    """The description of a model of `modality` in a folder or under a `gs://` prefix.

    Raises:
        UserError: there is none, or it is of something else.
    """
    where = storage.join(folder, DESCRIPTION)
    description = storage.read_json(where)
    if not isinstance(description, dict) or description.get("modality") != modality:
        raise UserError(f'{where}: not the description of a model of {modality}; expected "modality": "{modality}"')
    return description


def read_weights(folder: str | Path, description: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights that a description belongs to.

    Raises:
        UserError: they are missing or damaged.
    """
    uri = storage.join(folder, WEIGHTS)
    data = storage.read_bytes(uri, limit=MAX_WEIGHT_BYTES)
    if hashlib.sha256(data).hexdigest() != description.get("weights_sha256"):
        raise UserError(f"{uri}: content does not match weights_sha256 in {DESCRIPTION}; copy the model again")
    return deserialize(data, uri)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Copies `weights` into `network`; `where` names them in errors.

    Raises:
        UserError: names or shapes differ; the first difference is named.
    """
    own = network.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        found = tuple(weights[name].shape) if name in weights else "nothing"
        wanted = tuple(own[name].shape) if name in own else "nothing"
        if found != wanted:
            raise UserError(f"{where}: {name}: found {found}, the configured network has {wanted}")
    network.load_state_dict(dict(weights))
