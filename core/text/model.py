"""A text model: network and tokenizer; saved as core/storage/model_folder.py says, the time warp among its weights.

model/tokenizer.json   text to tokens and back
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core import storage
from core.config import validate
from core.errors import UserError
from core.storage.model_folder import DESCRIPTION, load_weights, read_description, read_weights, write_model
from core.text import tokenizer as tokenizers
from core.text.autoregressive import Autoregressive
from core.text.config import TextModel
from core.text.denoiser import Diffusion
from core.text.objective import OBJECTIVES, build
from core.text.tokenizer import Tokenizer

TOKENIZER = "tokenizer.json"


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


def describe(objective: str, config: TextModel, tokenizer: Tokenizer) -> dict[str, Any]:
    """What model.json says whatever the weights are: enough to rebuild the network."""
    return {
        "modality": "text",
        "objective": objective,
        "model": config.model_dump(mode="json"),
        "vocabulary_size": tokenizer.size,
        "tokenizer_sha256": tokenizers.sha256(tokenizer.to_json()),
    }


def save_model(
    folder: Path, network: nn.Module, objective: str, config: TextModel, tokenizer: Tokenizer, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes weights, tokenizer and description into `folder`; returns the description."""
    storage.write_json(folder / TOKENIZER, tokenizer.to_json())
    return write_model(folder, network, {**describe(objective, config, tokenizer), **facts})


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> TrainedText:
    """Reads and verifies what `save_model` wrote, from a folder or a `gs://` prefix.

    Raises:
        UserError: a file is missing, damaged, or not of a text model.
    """
    where = storage.join(folder, DESCRIPTION)
    description = read_description(folder, "text")
    if description.get("objective") not in OBJECTIVES:
        raise UserError(f"{where}: objective {description.get('objective')!r}; allowed: {', '.join(OBJECTIVES)}")
    config = validate(TextModel, description.get("model"), f"{where}: model")
    weights = read_weights(folder, description)
    tokenizer = tokenizers.load(storage.join(folder, TOKENIZER), str(description.get("tokenizer_sha256")))
    network = build(description["objective"], tokenizer.size, config)
    load_weights(network, weights, str(folder))
    network.to(device).eval().requires_grad_(False)
    return TrainedText(network, tokenizer, config, description)


def begin_from(network: nn.Module, folder: Path, tokenizer: Tokenizer) -> None:
    """Begins `network` from a trained model of the same tokens.

    A diffusion model may also begin from an autoregressive one, and from one without the evidence of next tokens, which
    says nothing until it is trained.

    Raises:
        UserError: tokens or sizes differ.
    """
    trained = load_model(folder)
    if trained.tokenizer.to_json() != tokenizer.to_json():
        raise UserError(f"{folder}: its tokenizer is not the data set's; train both on one prepared data set")
    target = network
    if isinstance(network, Diffusion) and isinstance(trained.network, Autoregressive):
        target = network.autoregressive
    fresh = {key: value for key, value in target.state_dict().items() if key.startswith("next_evidence.")}
    load_weights(target, fresh | trained.network.state_dict(), str(folder))


def load_models(
    model: Path, autoregressive: Path | None, device: torch.device | str
) -> tuple[TrainedText, Autoregressive | None]:
    """A trained model and, if there is a folder of one, the autoregressive model that it is joined with.

    Raises:
        UserError: a file is missing or damaged, or the two do not have the same tokens.
    """
    trained = load_model(model, device)
    if autoregressive is None:
        return trained, None
    other = load_model(autoregressive, device)
    if not isinstance(other.network, Autoregressive):
        raise UserError(f"{autoregressive}: objective is {other.objective}; an autoregressive model is needed")
    if other.tokenizer.to_json() != trained.tokenizer.to_json():
        raise UserError(f"{autoregressive}: its tokenizer is not the diffusion model's; fusion needs the same tokens")
    return trained, other.network
