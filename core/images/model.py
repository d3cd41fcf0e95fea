"""An image model: network, noise process and data shape; saved as core/storage/model_folder.py says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core import noise, storage
from core.config import Frozen, validate
from core.errors import UserError
from core.images.config import UNMEASURED, ImageModel, Process
from core.images.networks import NETWORKS
from core.storage.model_folder import DESCRIPTION, load_weights, read_description, read_guide, read_weights, write_model
from core.training.capacity import build_within_memory
from core.transfer import to_device


class ImageShape(Frozen):
    """Shape and classes of the images that a model makes."""

    channels: Literal[1, 3]
    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    class_names: tuple[str, ...] = Field(max_length=100_001)

    @property
    def size(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        return self.channels, self.height, self.width


def build_network(config: ImageModel, shape: ImageShape) -> nn.Module:
    """The network that `config` describes, with fresh weights.

    Raises:
        UserError: the image size does not suit the number of levels, or it would not fit this machine.
    """
    network = config.network
    if problem := network.obstacle(shape.height, shape.width):
        raise UserError(problem)

    def build() -> nn.Module:
        built: nn.Module = import_module(NETWORKS[network.name]).build(network, shape)
        return built

    return build_within_memory(build, "model.network")


class NoiseProcess:
    """The noise process of a configuration: density of training noise levels, preconditioning, loss weights."""

    def __init__(self, config: Process) -> None:
        self.config = config
        schedule = config.schedule
        self.sigma_data = UNMEASURED if config.sigma_data == "auto" else config.sigma_data
        self.table = noise.linear_beta_sigmas(schedule.steps, schedule.beta_start, schedule.beta_end)
        self._tables: dict[torch.device, Tensor] = {}  # the same on each device: a recorded step copies none
        self.density = noise.Density(config.density, config.location, config.scale, self.table)

    def coefficients(self, sigma: Tensor) -> noise.Coefficients:
        return noise.coefficients(self.config.parameterisation, sigma, self.sigma_data)

    def noise_level(self, sigma: Tensor) -> Tensor:
        """c_noise: the schedule's time for epsilon prediction, ln(sigma)/4 otherwise. [B] -> [B]"""
        if self.config.parameterisation == "epsilon":
            if sigma.device not in self._tables:
                self._tables[sigma.device] = to_device(self.table, sigma.device)
            return noise.schedule_time(sigma, self._tables[sigma.device])
        return sigma.log() / 4

    def output_weight(self, sigma: Tensor, c: noise.Coefficients) -> Tensor:
        """Weight of the squared error of the network's output. [B] -> [B]"""
        return noise.output_weight(self.config.weight, sigma, c.out, self.sigma_data)

    def encoded(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] as the network learns them: pixels of full black or white lie `margin` further out.

        A posterior mean never reaches the ends of the data's range, so where black is at the end samples are a little
        too bright. Decoding clamps to [-1, 1], which undoes this.
        """
        margin = self.config.margin
        if margin == 0:
            return images
        return images + margin * ((images >= 1).to(images.dtype) - (images <= -1).to(images.dtype))

    def denoise(self, network: Callable[..., Any], x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """D(x, sigma) for each label. [B, C, H, W], [] of the host, [B] -> [B, C, H, W]"""
        sigma = torch.full((len(x),), float(sigma), device=x.device)
        c = self.coefficients(sigma)
        output = network(x * c.in_[:, None, None, None], self.noise_level(sigma), labels)
        return c.denoised(x, output.float())


@dataclass(frozen=True)
class TrainedModel:
    """A network with averaged weights, ready to sample."""

    network: nn.Module
    process: NoiseProcess
    shape: ImageShape
    config: ImageModel
    description: dict[str, Any]
    guide: nn.Module | None = None  # the same network early in its training


def describe(config: ImageModel, shape: ImageShape) -> dict[str, Any]:
    """What model.json says whatever the weights are: enough to rebuild the network."""
    return {
        "modality": "images",
        "objective": "diffusion",
        "model": config.model_dump(mode="json"),
        "data": shape.model_dump(mode="json"),
    }


def save_model(
    folder: Path,
    network: nn.Module,
    config: ImageModel,
    shape: ImageShape,
    facts: Mapping[str, Any],
    guide: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Writes weights, the guide's weights if there are any, and model.json into `folder`; returns the description."""
    return write_model(folder, network, {**describe(config, shape), **facts}, guide)


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> TrainedModel:
    """Reads and verifies what `save_model` wrote, from a folder or a `gs://` prefix.

    Raises:
        UserError: a file is missing, damaged, or not of an image model.
    """
    where = storage.join(folder, DESCRIPTION)
    description = read_description(folder, "images")
    config = validate(ImageModel, description.get("model"), f"{where}: model")
    shape = validate(ImageShape, description.get("data"), f"{where}: data")

    def build(weights: Mapping[str, Tensor]) -> nn.Module:
        network = build_network(config, shape)
        load_weights(network, weights, str(folder))
        return network.to(device).eval().requires_grad_(False)

    network, early = build(read_weights(folder, description)), read_guide(folder, description)
    guide = build(early) if early else None
    return TrainedModel(network, NoiseProcess(config.process), shape, config, description, guide)
