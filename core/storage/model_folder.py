"""What every trained model is on disk: weights and a description, in safetensors and JSON.

<folder>/weights.safetensors   averaged weights
<folder>/guide.safetensors     those of early in the training, if it kept them to guide sampling
<folder>/model.json            what rebuilds the network, the SHA-256 of both and its own, and where it came from
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from core import storage
from core.errors import UserError
from core.names import inside
from core.storage import integrity
from core.storage.checkpoint import deserialize, serialize

WEIGHTS, GUIDE, DESCRIPTION = "weights.safetensors", "guide.safetensors", "model.json"
MAX_WEIGHT_BYTES = 16 << 30


def write_model(
    folder: Path, network: nn.Module, description: Mapping[str, Any], guide: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Writes the files into `folder`; returns the description as it was written."""
    whole = {
        **description,
        "parameters": sum(p.numel() for p in network.parameters()),
        **write_weights(folder, network.state_dict(), guide),
    }
    integrity.write_json(folder / DESCRIPTION, whole)
    return whole


def require_model_or_nothing(folder: str | Path) -> Path:
    """`folder` as an absolute path, if a model may be written there.

    Raises:
        UserError: it is in a bucket, or holds something else, which would be lost.
    """
    if storage.is_remote(folder):
        raise UserError(f"{folder}: a model is saved to a folder of this machine; copy it from there")
    out = Path(folder).absolute()
    if not storage.may_become(out, DESCRIPTION):
        raise UserError(f"{folder}: holds something that is no model; choose another folder")
    return out


def write_weights(
    folder: Path, weights: Mapping[str, Tensor], guide: Mapping[str, Tensor] | None = None
) -> dict[str, str]:
    """Writes weights and, if there are any, those of the guide; what the description says of them."""
    facts = {}
    for name, fact, state in ((WEIGHTS, "weights_sha256", weights), (GUIDE, "guide_sha256", guide)):
        if state:
            data = serialize(state)
            storage.write_bytes(inside(folder, name), data)
            facts[fact] = hashlib.sha256(data).hexdigest()
    return facts


def read_description(folder: str | Path, modality: str) -> dict[str, Any]:
    """The description of a model of `modality` in a folder or under a `gs://` prefix.

    Raises:
        UserError: there is none, it is damaged, or it is of something else.
    """
    where = storage.join(folder, DESCRIPTION)
    description = integrity.read_json(where)
    if description.get("modality") != modality:
        raise UserError(f'{where}: not the description of a model of {modality}; expected "modality": "{modality}"')
    return description


def read_weights(
    folder: str | Path, description: Mapping[str, Any], name: str = WEIGHTS, fact: str = "weights_sha256"
) -> dict[str, Tensor]:
    """The weights that a description belongs to.

    Raises:
        UserError: they are missing or damaged.
    """
    uri = inside(str(folder), name)
    data = storage.read_bytes(uri, limit=MAX_WEIGHT_BYTES)
    if hashlib.sha256(data).hexdigest() != description.get(fact):
        raise UserError(f"{uri}: content does not match {fact} in {DESCRIPTION}; copy the model again")
    return deserialize(data, uri)


def read_guide(folder: str | Path, description: Mapping[str, Any]) -> dict[str, Tensor]:
    """The guide's weights; empty if the model has none.

    Raises:
        UserError: they are missing or damaged.
    """
    return read_weights(folder, description, GUIDE, "guide_sha256") if "guide_sha256" in description else {}


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Copies `weights` into `network`; `where` names them in errors.

    Raises:
        UserError: names or shapes differ; the first difference is named.
    """
    own = network.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        shape = tuple(weights[name].shape) if name in weights else "nothing"
        wanted = tuple(own[name].shape) if name in own else "nothing"
        if shape != wanted:
            raise UserError(f"{where}: {name}: found {shape}, the configured network has {wanted}")
    network.load_state_dict(dict(weights))
