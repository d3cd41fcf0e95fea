"""An image model as a thing on disk: network, noise process and data shape, in safetensors and JSON.

model/weights.safetensors   averaged weights
model/model.json            what is needed to rebuild the network, and where it came from
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core import noise, storage
from core.checkpoint import deserialize, serialize
from core.config import Frozen, validate
from core.errors import UserError
from core.images.config import DDPMUNetConfig, ImageModel, Process
from core.images.ddpm_unet import DDPMUNet
from core.images.unet import UNet

WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"
MAX_WEIGHT_BYTES = 16 << 30


class ImageShape(Frozen):
    """Shape and classes of the images that a model makes."""

    channels: int
    height: int
    width: int
    class_names: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        return self.channels, self.height, self.width


def build_network(config: ImageModel, shape: ImageShape) -> nn.Module:
    """The network that `config` describes, with fresh weights.

    Raises:
        UserError: the image size does not suit the number of levels.
    """
    classes = len(shape.class_names)
    network = config.network
    if isinstance(network, DDPMUNetConfig):
        divisor = 2
    else:
        divisor = network.patch * 2 ** (len(network.channels) - 1)
    if shape.height % divisor or shape.width % divisor:
        raise UserError(
            f"model.network: images of {shape.height}x{shape.width} pixels; this network needs sides divisible by"
            f" {divisor}: use fewer levels in model.network.channels, or set data.resolution"
        )
    if isinstance(network, DDPMUNetConfig):
        return DDPMUNet(network, shape.channels, classes)
    return UNet(network, shape.channels, classes)


class NoiseProcess:
    """The noise process of a configuration: density of training noise levels, preconditioning, loss weights."""

    def __init__(self, config: Process) -> None:
        self.config = config
        schedule = config.schedule
        self.table = noise.linear_beta_sigmas(schedule.steps, schedule.beta_start, schedule.beta_end)
        self.density = noise.Density(config.density, config.location, config.scale, self.table)

    def coefficients(self, sigma: Tensor) -> noise.Coefficients:
        return noise.coefficients(self.config.parameterisation, sigma, self.config.sigma_data)

    def noise_level(self, sigma: Tensor) -> Tensor:
        """c_noise: the schedule's time for epsilon prediction, ln(sigma)/4 otherwise. [B] -> [B]"""
        if self.config.parameterisation == "epsilon":
            return noise.schedule_time(sigma, self.table.to(sigma.device))
        return sigma.log() / 4

    def error_weight(self, sigma: Tensor, wrap: noise.Coefficients) -> Tensor:
        """Weight of the squared error of the network's *output*, for the configured weight of the denoised image."""
        if self.config.weight == "output":
            return torch.ones_like(sigma)
        return noise.loss_weight(self.config.weight, sigma, wrap.out, self.config.sigma_data) * wrap.out**2

    def denoise(self, network: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """D(x, sigma) for each label. [B, C, H, W], [], [B] -> [B, C, H, W]"""
        sigma = sigma.float().expand(len(x))
        wrap = self.coefficients(sigma)
        output = network(x * wrap.in_[:, None, None, None], self.noise_level(sigma), labels)
        return wrap.denoised(x, output.float())


@dataclass(frozen=True)
class TrainedModel:
    """A network with averaged weights, ready to sample."""

    network: nn.Module
    process: NoiseProcess
    shape: ImageShape
    config: ImageModel
    description: dict[str, Any]


def save_model(
    folder: Path, network: nn.Module, config: ImageModel, shape: ImageShape, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes weights.safetensors and model.json into `folder`; returns the description."""
    data = serialize(network.state_dict())
    description = {
        "modality": "images",
        "objective": "diffusion",
        "model": config.model_dump(mode="json"),
        "data": shape.model_dump(mode="json"),
        "parameters": sum(p.numel() for p in network.parameters()),
        "weights_sha256": hashlib.sha256(data).hexdigest(),
        **facts,
    }
    storage.write_bytes(folder / WEIGHTS, data)
    storage.write_json(folder / DESCRIPTION, description)
    return description


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> TrainedModel:
    """Reads and verifies what `save_model` wrote, from a folder or a `gs://` prefix.

    Raises:
        UserError: a file is missing, damaged, or not of an image model.
    """
    where = storage.join(folder, DESCRIPTION)
    description = storage.read_json(where)
    if not isinstance(description, dict) or description.get("modality") != "images":
        raise UserError(f'{where}: not the description of an image model; expected "modality": "images"')
    config = validate(ImageModel, description.get("model"), f"{where}: model")
    shape = validate(ImageShape, description.get("data"), f"{where}: data")
    uri = storage.join(folder, WEIGHTS)
    data = storage.read_bytes(uri, limit=MAX_WEIGHT_BYTES)
    if hashlib.sha256(data).hexdigest() != description.get("weights_sha256"):
        raise UserError(f"{uri}: content does not match weights_sha256 in {DESCRIPTION}; copy the model again")
    network = build_network(config, shape)
    load_weights(network, deserialize(data, uri), uri)
    network.to(device).eval().requires_grad_(False)
    return TrainedModel(network, NoiseProcess(config.process), shape, config, description)


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
