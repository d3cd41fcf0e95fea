"""Training an image diffusion model: its loss, its validation on fixed noise, its previews; and guidance."""

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
from core.images.model import ImageShape, NoiseProcess, build_network
from core.randomness import Draws, generator_of
from core.samplers import Denoiser, SampleNoise, sample_dpmpp
from core.training import optimizers as optim
from core.transfer import to_device

VALIDATION_BINS = 8
VALIDATION_EXAMPLES = 1024
PREVIEW_STEPS = 12

Split = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images and labels


class ImageDiffusion:
    """The objective of core/training/loop.py for images.

    Args:
        config: network, noise process and label dropout.
        shape: of the images.
        train: images uint8 [N, H, W] or [N, H, W, 3], perhaps memory-mapped, and labels int64 [N].
        validation: likewise.
        seed: of the fresh weights.
    """

    def __init__(
        self, config: ImageModel, shape: ImageShape, train: Split, validation: Split, *, seed: int = 0
    ) -> None:
        self.config, self.shape = config, shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_of(seed, "weights").initial_seed())
            self.model = build_network(config, shape)
        self.process = NoiseProcess(config.process)
        self.dataset_size = len(train[0])
        self._train = train
        self._validation = tuple(array[:VALIDATION_EXAMPLES] for array in validation)

    @property
    def no_class(self) -> int:
        """The label that stands for no class."""
        return len(self.shape.class_names)

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

    def loss(self, model: Callable[..., Any], indices: Tensor, draws: Draws) -> Tensor:
        """Losses [b] of the training images at `indices` [b], some of them without their class."""
        images, labels = (torch.from_numpy(array[indices.numpy()]) for array in self._train)
        sigma = self.process.density.quantile(draws.stratified())  # [b]
        unit = draws.normal(*self.shape.size)  # [b, C, H, W]
        dropped = draws.uniform() < (self.config.label_dropout if self.config.conditional else 1.0)
        labels = torch.where(dropped, self.no_class, to_device(labels, draws.device))
        return self.denoising_loss(model, pictures.to_float(to_device(images, draws.device)), labels, sigma, unit)

    def denoising_loss(
        self, model: Callable[..., Any], clean: Tensor, labels: Tensor, sigma: Tensor, unit: Tensor
    ) -> Tensor:
        """EDM's loss, weight |D(y + n, sigma) - y|^2 as the error of the network's output (equation 8).

        Args:
            model: the network.
            clean: y, images in [-1, 1], [b, C, H, W].
            labels: [b]; `no_class` stands for none.
            sigma: noise levels [b].
            unit: standard normal noise [b, C, H, W].

        Returns:
            [b], the mean over pixels.
        """
        c = self.process.coefficients(sigma)  # eq. 7
        weight = self.process.output_weight(sigma, c)
        x = clean + sigma[:, None, None, None] * unit
        output = model(x * c.in_[:, None, None, None], self.process.noise_level(sigma), labels).float()
        errors = (output - c.target(x, clean)).square().flatten(1).mean(1)
        return errors * weight  # eq. 8

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
                self.denoising_loss(
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
        sigmas = noise.karras_sigmas(PREVIEW_STEPS, 0.02, 40.0)
        x = float(sigmas[0]) * SampleNoise(range(len(labels)), self.shape.size, device)()
        denoiser = guided(model, self.process, labels, self.no_class, device=device)
        images = pictures.to_uint8(sample_dpmpp(denoiser, x, sigmas).cpu())
        return ".png", pictures.png(pictures.grid(images, columns=classes))


def guided(
    network: nn.Module,
    process: NoiseProcess,
    labels: Tensor,
    no_class: int,
    *,
    device: torch.device | str = "cpu",
    scale: float = 1.0,
    interval: tuple[float, float] = (0.0, float("inf")),
    guide: nn.Module | None = None,
    autoguidance: float = 1.0,
) -> Denoiser:
    """A denoiser on `device` for `labels` [B] of the host, guided away from what knows less: no class, a worse network.

    D = D_class + (scale - 1) (D_class - D_none) + (autoguidance - 1) (D_class - D_guide)

    The first is classifier-free guidance (Ho and Salimans 2022), for interval[0] < sigma <= interval[1] only: it harms
    at high noise and is useless at low (Kynkäänniemi et al. 2024). Both of its terms come from one evaluation of a
    doubled batch. The second is autoguidance (Karras et al. 2024, "Guiding a diffusion model with a bad version of
    itself"), above interval[0]: where both networks err alike, the worse one errs further, and shows the way back.
    """
    unconditional = bool((labels == no_class).all())
    labels = to_device(labels, device)
    nothing = torch.full_like(labels, no_class)

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        level = float(sigma)
        if scale == 1 or not interval[0] < level <= interval[1] or unconditional:
            denoised = with_class = process.denoise(network, x, sigma, labels)
        else:
            both = process.denoise(network, torch.cat([x, x]), sigma, torch.cat([labels, nothing]))
            with_class, without = both.chunk(2)
            denoised = without + scale * (with_class - without)
        if guide is not None and autoguidance != 1 and interval[0] < level:
            denoised = denoised + (autoguidance - 1) * (with_class - process.denoise(guide, x, sigma, labels))
        return denoised

    return denoiser
