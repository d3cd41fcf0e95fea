"""A text model as a thing on disk: network and tokenizer, in safetensors and JSON.

model/weights.safetensors   averaged weights, the time warp among them
model/tokenizer.json        text to tokens and back
model/model.json            what is needed to rebuild the network, and where it came from
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core import storage
from core.checkpoint import deserialize, serialize
from core.config import validate
from core.errors import UserError
from core.text import tokenizer as tokenizers
from core.text.autoregressive import Autoregressive, NextToken
from core.text.config import TextModel
from core.text.diffusion import Diffusion
from core.text.objectives import OBJECTIVES, build
from core.text.tokenizer import Tokenizer

WEIGHTS, DESCRIPTION, TOKENIZER = "weights.safetensors", "model.json", "tokenizer.json"
MAX_WEIGHT_BYTES = 16 << 30


@dataclass(frozen=True)
class TrainedText:
    """A network with averaged weights and its tokenizer, ready to sample."""

    network: nn.Module
    tokenizer: Tokenizer
    config: TextModel
    description: dict[str, Any]

    @property
    def objective(self) -> str:
        return str(self.description["objective"])


def save_model(
    folder: Path, network: nn.Module, objective: str, config: TextModel, tokenizer: Tokenizer, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes weights, tokenizer and description into `folder`; returns the description."""
    data = serialize(network.state_dict())
    saved = tokenizer.to_json()
    description = {
        "modality": "text",
        "objective": objective,
        "model": config.model_dump(mode="json"),
        "vocabulary_size": tokenizer.size,
        "tokenizer_sha256": hashlib.sha256(json.dumps(saved, sort_keys=True).encode()).hexdigest(),
        "parameters": sum(p.numel() for p in network.parameters()),
        "weights_sha256": hashlib.sha256(data).hexdigest(),
        **facts,
    }
    storage.write_bytes(folder / WEIGHTS, data)
    storage.write_json(folder / TOKENIZER, saved)
    storage.write_json(folder / DESCRIPTION, description)
    return description


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> TrainedText:
    """Reads and verifies what `save_model` wrote, from a folder or a `gs://` prefix.

    Raises:
        UserError: a file is missing, damaged, or not of a text model.
    """
    where = storage.join(folder, DESCRIPTION)
    description = storage.read_json(where)
    if not isinstance(description, dict) or description.get("modality") != "text":
        raise UserError(f'{where}: not the description of a text model; expected "modality": "text"')
    if description.get("objective") not in OBJECTIVES:
        raise UserError(f"{where}: objective {description.get('objective')!r}; allowed: {', '.join(OBJECTIVES)}")
    config = validate(TextModel, description.get("model"), f"{where}: model")
    uri = storage.join(folder, WEIGHTS)
    data = storage.read_bytes(uri, limit=MAX_WEIGHT_BYTES)
    if hashlib.sha256(data).hexdigest() != description.get("weights_sha256"):
        raise UserError(f"{uri}: content does not match weights_sha256 in {DESCRIPTION}; copy the model again")
    saved = storage.read_json(storage.join(folder, TOKENIZER), limit=tokenizers.MAX_BYTES)
    tokenizer = tokenizers.from_json(saved, storage.join(folder, TOKENIZER))
    network = build(description["objective"], tokenizer.size, config)
    load_weights(network, deserialize(data, uri), uri)
    network.to(device).eval().requires_grad_(False)
    return TrainedText(network, tokenizer, config, description)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Copies `weights` into `network`.

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


def warm_start(network: nn.Module, folder: Path, tokenizer: Tokenizer) -> None:
    """Begins `network` from a trained model of the same tokens; a diffusion model also from an autoregressive one.

    Raises:
        UserError: tokens or sizes differ.
    """
    trained = load_model(folder)
    if trained.tokenizer.to_json() != tokenizer.to_json():
        raise UserError(f"{folder}: its tokenizer is not the data set's; train both on one prepared data set")
    target = network
    if isinstance(network, Diffusion) and isinstance(trained.network, Autoregressive):
        target = network.autoregressive
    load_weights(target, trained.network.state_dict(), storage.join(folder, WEIGHTS))


def load_autoregressive(folder: Path | None, diffusion: TrainedText, device: torch.device | str) -> NextToken:
    """The autoregressive side of fusion: a trained model, a Hugging Face folder, or the diffusion model's own.

    Raises:
        UserError: its tokens are not the diffusion model's.
    """
    if folder is None:
        assert isinstance(diffusion.network, Diffusion)
        return diffusion.network.autoregressive
    if not (folder / DESCRIPTION).exists() and (folder / "config.json").exists():
        from core.text.huggingface import load_huggingface

        return load_huggingface(folder, diffusion.tokenizer, device)
    trained = load_model(folder, device)
    if not isinstance(trained.network, Autoregressive):
        raise UserError(f"{folder}: objective is {trained.objective}; an autoregressive model is needed")
    if trained.tokenizer.to_json() != diffusion.tokenizer.to_json():
        raise UserError(f"{folder}: its tokenizer is not the diffusion model's; fusion needs the same tokens")
    return trained.network
