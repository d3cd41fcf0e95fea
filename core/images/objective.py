"""Training on a data set of images: batches for the loss of core/images/image_diffusion.py, validation, previews."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core import noise
from core.images import pictures
from core.images.config import ImageModel
from core.images.guidance import guided
from core.images.image_diffusion import ImageDiffusion
from core.images.model import ImageShape
from core.images.shards import Images, order_of
from core.randomness import DataOrder, Draws, Noise, generator_of
from core.samplers import sample_dpmpp
from core.training import optimizers as optim
from core.training.capacity import fits_beside_training
from core.training.objective import Batch
from core.transfer import to_device

VALIDATION_BINS = 8
VALIDATION_EXAMPLES = 1024
PREVIEW_STEPS = 12

Split = tuple[Images, NDArray[np.int64]]  # images and labels


class ImageObjective:
    """The objective of core/training/loop.py for images.

    Args:
        config: network, noise process and label dropout.
        shape: of the images.
        train: images uint8 [N, H, W] or [N, H, W, 3], perhaps memory-mapped or in shards, and labels int64 [N].
        validation: likewise.
        seed: of the fresh weights.
    """

    def __init__(
        self, config: ImageModel, shape: ImageShape, train: Split, validation: Split, *, seed: int = 0
    ) -> None:
        self.config, self.shape = config, shape
        self.diffusion = ImageDiffusion(config.network, shape, config=config, seed=seed)
        self.model, self.process = self.diffusion.network, self.diffusion.process
        self.no_class = self.diffusion.no_class
        self._train = train
        self._resident: Tensor | None = None  # all training images, on a GPU with room for them
        self._validation = tuple(array[:VALIDATION_EXAMPLES] for array in validation)

    def order(self, seed: int) -> DataOrder:
        """The training images in the order in which they are seen."""
        return order_of(self._train[0], seed)

    def parameter_groups(self) -> Sequence[optim.ParameterGroup]:
        """Weights of the layers between first and last may go to Muon; first, last, embeddings, biases, gains not."""
        hidden: list[nn.Parameter] = []
        edge: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            at_edge = name.startswith(("stem.", "head.")) or "classes." in name
            group = plain if parameter.ndim < 2 else edge if at_edge else hidden
            group.append(parameter)
        return [
            optim.ParameterGroup(hidden, weight_decay=True, matrices=True),
            optim.ParameterGroup(edge, weight_decay=True),
            optim.ParameterGroup(plain),
        ]

    def batch(self, indices: Tensor, draws: Draws) -> Batch:
        """The training images at `indices` [b], some of them without their class, with noise levels and noise."""
        images, labels = self._train[0], torch.from_numpy(self._train[1][indices.numpy()])
        one_array = draws.device.type == "cuda" and isinstance(images, np.ndarray)
        if self._resident is None and one_array and fits_beside_training(images.nbytes, draws.device):
            self._resident = torch.from_numpy(np.array(images)).to(draws.device)
        if self._resident is not None:
            pixels = self._resident[to_device(indices, draws.device)]
        else:
            pixels = to_device(torch.from_numpy(images[indices.numpy()]), draws.device)
        return Batch((pixels, *self.diffusion.drawn(labels, draws)))

    def loss(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        """Losses [b] of a batch."""
        pixels, labels, sigma, unit = batch.tensors
        return self.diffusion.denoising_loss(model, pictures.to_float(pixels), labels, sigma, unit)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Loss on validation images with the same noise every time, overall and at eight fixed noise levels."""
        model.eval()
        device = next(model.parameters()).device
        images, labels = (torch.from_numpy(np.array(array)) for array in self._validation)  # copies: mapped read-only
        bins = torch.arange(len(images)) % VALIDATION_BINS
        levels = self.process.density.quantile((torch.arange(VALIDATION_BINS) + 0.5) / VALIDATION_BINS)  # [bins]
        unit = torch.randn(len(images), *self.shape.size, generator=generator_of("validation"))
        if not self.config.conditional:
            labels = torch.full_like(labels, self.no_class)
        errors = torch.cat(
            [
                self.diffusion.denoising_loss(
                    model,
                    pictures.to_float(to_device(images[part], device)),
                    *(to_device(values, device) for values in (labels[part], levels[bins[part]], unit[part])),
                ).cpu()
                for part in torch.arange(len(images)).split(256)
            ]
        )
        by_bin = {b: errors[bins == b].mean().item() for b in range(VALIDATION_BINS) if (bins == b).any()}
        losses = {f"loss/sigma={float(levels[b]):.3g}": value for b, value in by_bin.items()}
        return {"loss": sum(by_bin.values()) / len(by_bin), **losses}

    @torch.no_grad()
    def preview(self, model: nn.Module) -> tuple[str, bytes]:
        """A small grid of samples, a column a class, always from the same noise."""
        model.eval()
        device = next(model.parameters()).device
        classes = min(10, self.no_class) if self.config.conditional else 8
        labels = torch.arange(classes).repeat(4) if self.config.conditional else torch.full((32,), self.no_class)
        unit = Noise(range(len(labels)), device).normal(*self.shape.size)
        images = pictures.to_uint8(self._drawn(model, unit, labels).cpu())
        return ".png", pictures.png(pictures.grid(images, columns=classes))

    def _drawn(self, model: nn.Module, unit: Tensor, labels: Tensor) -> Tensor:
        """What the network makes of unit noise [B, C, H, W] and labels [B]."""
        sigmas = noise.karras_sigmas(PREVIEW_STEPS, 0.02, 40.0)
        denoiser = guided(model, self.process, labels, self.no_class, device=unit.device)
        return sample_dpmpp(denoiser, float(sigmas[0]) * unit, sigmas)
