"""Training in one call, with the training of the step `train`: it resumes, averages, validates and shows progress."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, overload

from torch import nn

from core.errors import UserError
from core.images.image_diffusion import ImageDiffusion
from core.images.networks import NetworkConfig, network_for
from core.modality import run
from core.names import inside
from core.processes.world import own_device
from core.requests import TrainRequest
from core.storage import scratches
from core.text.text_diffusion import TextDiffusion
from textdiffusion.datasets import Images, Texts

IMAGES = {"batch_size": 64, "optimizer": "muon", "learning_rate": 2e-3, "warmup_examples": 3000, "guide_at": 0.1}
TEXT = {"batch_size": 8, "optimizer": "muon", "learning_rate": 2e-3, "weight_decay": 0.05, "warmup_examples": 400}
"""Settings of training where nothing else is said: those of the predefined jobs."""
Network = Mapping[str, Any] | NetworkConfig | nn.Module


@overload
def train(
    data: Images,
    *,
    minutes: float | None = None,
    examples: int | None = None,
    network: Network | None = None,
    start: ImageDiffusion | None = None,
    seed: int = 0,
    checkpoints: str | Path | None = None,
    model: Mapping[str, Any] | None = None,
    **settings: Any,
) -> ImageDiffusion: ...


@overload
def train(
    data: Texts,
    *,
    minutes: float | None = None,
    examples: int | None = None,
    network: Mapping[str, Any] | None = None,
    objective: str = "diffusion",
    start: TextDiffusion | None = None,
    seed: int = 0,
    checkpoints: str | Path | None = None,
    model: Mapping[str, Any] | None = None,
    **settings: Any,
) -> TextDiffusion: ...


def train(  # one call for what a job's sections model and train say; all but `data` by name
    data: Images | Texts,
    *,
    minutes: float | None = None,
    examples: int | None = None,
    network: Network | None = None,
    objective: str = "diffusion",
    start: ImageDiffusion | TextDiffusion | None = None,
    seed: int = 0,
    checkpoints: str | Path | None = None,
    model: Mapping[str, Any] | None = None,
    **settings: Any,
) -> ImageDiffusion | TextDiffusion:
    """Trains a model until the budget is spent: averaged weights, ready to sample. On a GPU if there is one.

    The same call goes on where it was interrupted, as long as `data` or the folder of checkpoints is there.

    Args:
        data: what `td.images` or `td.text` made.
        minutes: budget in minutes of training; or
        examples: budget in examples.
        network: settings of the network: for images such as {"channels": [32, 64], "blocks": [1, 2]}, for text such as
            {"width": 192, "depth": 4, "heads": 3}; left out: one that suits the size of the data.
        objective: for text also autoregressive or masked.
        start: model that training begins from: of the same kind, or for diffusion of text an autoregressive one.
        seed: of weights, noise and order; the same seed on the same machine gives the same weights.
        checkpoints: folder or gs:// prefix for checkpoints, each training under a key of its own; left out: a temporary
            one, which ends with `data`.
        model: more keys of the section `model` of a job, such as {"label_dropout": 0.2}.
        settings: more keys of the section `train` of a job, such as batch_size, learning_rate, optimizer.

    Raises:
        UserError: the settings do not suit each other or the data, or a signal stopped the training.
    """
    if not isinstance(data, Images | Texts):
        raise UserError(f"data: found {type(data).__name__}; expected what td.images or td.text makes")
    images = isinstance(data, Images)
    if start is not None and isinstance(start, ImageDiffusion) is not images:
        raise UserError(f"start: found {type(start).__name__} for {type(data).__name__}")
    section = {**(IMAGES if images else TEXT), "seed": seed, **settings}
    section |= {key: value for key, value in (("minutes", minutes), ("examples", examples)) if value is not None}
    describe = _image_model if images else _text_model
    with ExitStack() as stack:
        scratch: Path = stack.enter_context(scratches.temporary_folder("train"))
        if start is not None:
            start.save(scratch / "start")
        request = TrainRequest(
            modality=data.modality,
            model=describe(data, start, network, model),
            train=section,
            dataset=data.folder,
            out=scratch / "model",
            objective=objective,
            work=str(checkpoints or inside(data.work, "checkpoints")),
            warm_start=scratch / "start" if start is not None else None,
        )
        run(request)
        return (ImageDiffusion if images else TextDiffusion).load(scratch / "model", own_device())


def _image_model(data: Any, start: Any, network: Network | None, model: Mapping[str, Any] | None) -> dict[str, Any]:
    """The section `model` for images: a network that divides their size."""
    if isinstance(network, nn.Module):
        raise UserError(
            "network: a module of your own trains in a loop of your own: td.ImageDiffusion(network, data.shape,"
            " data.class_names).loss(images, labels); or give td.train the settings of a network"
        )
    if start is not None and network is None:
        return {**start.config.model_dump(mode="json"), **(model or {})}
    chosen = network or network_for(*data.shape[:2])
    written = chosen.model_dump(mode="json") if isinstance(chosen, NetworkConfig) else dict(chosen)
    return {"network": written, "conditional": data.labelled, **(model or {})}


def _text_model(data: Any, start: Any, network: Any, model: Mapping[str, Any] | None) -> dict[str, Any]:
    """The section `model` for text: the longest context, up to 128 tokens, of which the held-out splits have one."""
    if start is not None and network is None:
        return {**start.trained.config.model_dump(mode="json"), **(model or {})}
    shortest = min(len(tokens) for tokens in data.dataset.tokens.values())
    context = next((length for length in (128, 64, 32) if length <= shortest), 16)
    section: dict[str, Any] = {"context": context, "transformer": dict(network or {}), **(model or {})}
    if section["context"] == 16:  # for which the last of the default blocks, 32, is too long
        section.setdefault("process", {"blocks": [8, 8, 16]})
    return section
