"""Diffusion of images as one object: `loss` trains a network, `sample` draws from it.

diffusion = ImageDiffusion({"channels": [32, 64], "blocks": [1, 2]}, shape=(28, 28), classes=10)
loss = diffusion.loss(images, labels).mean()
samples = diffusion.sample(16, label=7)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core import storage
from core.config import validate
from core.errors import UserError
from core.images import pictures
from core.images.config import UNMEASURED, ImageModel, ImageSample
from core.images.denoising_path import DrawnImages
from core.images.model import ImageShape, NoiseProcess, TrainedModel, build_network, load_model, save_model
from core.images.networks import NetworkConfig
from core.images.sampling import choose_labels, choose_sigmas, draw
from core.processes.world import World
from core.randomness import Draws, generator_of
from core.storage.model_folder import DESCRIPTION, require_model_or_nothing
from core.training.log import read_records, write_records
from core.transfer import to_device

MANNER = {"sampler": "dpmpp_sde", "sigma_max": 20.0, "start": "estimate", "guidance_low": 0.2, "guidance_high": 5.0}
GUIDANCE, AUTOGUIDANCE = 1.2, 1.25
"""How samples are drawn where nothing else is said: as the predefined image jobs do."""


class ImageDiffusion(nn.Module):
    """A network in its noise process. Its parameters are the network's.

    Args:
        network: settings of one of ours, such as {"channels": [32, 64], "blocks": [1, 2]}; or your own module
            F(x [B, C, H, W], noise level [B], labels [B]) -> [B, C, H, W], with labels 0..K, where K is no class.
        shape: of an image as arrays have it: (H, W), or (H, W, 3) in colour.
        classes: names of the K classes, or how many there are.
        sigma_data: standard deviation of the data in units of [-1, 1]; left out: as `config` says, else 0.6.
        config: noise process and label dropout, with the keys of the section `model` of an image job.
        seed: of the fresh weights of a network of ours.

    Raises:
        UserError: the settings do not suit each other or the shape.
    """

    def __init__(
        self,
        network: nn.Module | NetworkConfig | Mapping[str, Any],
        shape: ImageShape | Sequence[int],
        classes: Sequence[str] | int = (),
        *,
        sigma_data: float | None = None,
        config: ImageModel | Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.shape = _shape(shape, classes)
        self.config = _config(config, None if isinstance(network, nn.Module) else network, sigma_data)
        self.process = NoiseProcess(self.config.process)
        self.own_network = isinstance(network, nn.Module)
        self.network: nn.Module
        if isinstance(network, nn.Module):
            self.network = network
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(generator_of(seed, "weights").initial_seed())
                self.network = build_network(self.config, self.shape)
        self.guide: nn.Module | None = None
        self.description: dict[str, Any] = {}
        self.log: list[dict[str, Any]] = []
        self.manner: dict[str, Any] = {}  # settings of the sampler by which the model was measured

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> Self:
        """What `save`, or a step that trains, wrote into a folder or under a `gs://` prefix.

        Raises:
            UserError: a file is missing, damaged, or not of an image model.
        """
        trained = load_model(folder, device)
        loaded = cls(trained.network, trained.shape, config=trained.config)
        loaded.own_network, loaded.guide, loaded.description = False, trained.guide, trained.description
        loaded.log = read_records(folder)
        return loaded.eval()

    def save(self, folder: str | Path) -> None:
        """Writes weights, description and log into `folder`, all or nothing; a model that is there is replaced.

        Raises:
            UserError: the network is a module of your own, which nobody could build again from a file; or the folder
                holds something else than a model.
        """
        if self.own_network:
            raise UserError("save: the network is a module of your own: keep its state_dict() by safetensors instead")
        out = require_model_or_nothing(folder)
        guide = self.guide.state_dict() if self.guide is not None else None
        with storage.atomic_folder(out, DESCRIPTION) as new:
            self.description = save_model(new, self.network, self.config, self.shape, self.description, guide)
            write_records(self.log, {}, new)

    @property
    def no_class(self) -> int:
        """The label that means no class."""
        return len(self.shape.class_names)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def trained(self) -> TrainedModel:
        """The parts of it, as the steps know a model."""
        return TrainedModel(self.network, self.process, self.shape, self.config, self.description, self.guide)

    def loss(
        self,
        images: Tensor | NDArray[Any],
        labels: Tensor | NDArray[Any] | None = None,
        *,
        draws: Draws | None = None,
        network: Callable[..., Any] | None = None,
    ) -> Tensor:
        """Losses [B] of images at noise levels drawn from the training density, some of them without their class.

        Args:
            images: uint8 [B, H, W] or [B, H, W, 3], or float [B, C, H, W] in [-1, 1].
            labels: integers [B], 0..K-1, -1 for no class; None: no classes.
            draws: the random numbers; left out: fresh ones, which `torch.manual_seed` repeats.
            network: what is called in the place of the network, such as the same one compiled.

        Raises:
            UserError: images or labels do not suit the model.
        """
        clean, labels = self._clean(images), self._labels(labels, len(images))
        given = self.drawn(labels, draws or Draws.fresh(len(clean), self.device))
        return self.denoising_loss(network or self.network, to_device(clean, self.device), *given)

    def drawn(self, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """What chance adds to images of `labels` [B], on its device: labels, some dropped, noise levels [B], noise."""
        sigma = self.process.density.quantile(draws.stratified())  # [B]
        unit = draws.normal(*self.shape.size)  # [B, C, H, W]
        dropped = draws.uniform() < (self.config.label_dropout if self.config.conditional else 1.0)
        labels = torch.where(to_device(dropped, labels.device) | (labels < 0), self.no_class, labels)
        return to_device(labels, draws.device), to_device(sigma, draws.device), unit

    def denoising_loss(
        self, network: Callable[..., Any], clean: Tensor, labels: Tensor, sigma: Tensor, unit: Tensor
    ) -> Tensor:
        """EDM's loss, weight |D(y + n, sigma) - y|^2 as the error of the network's output (equation 8).

        Args:
            network: F.
            clean: y, images in [-1, 1], [B, C, H, W].
            labels: [B]; `no_class` means none.
            sigma: noise levels [B].
            unit: standard normal noise [B, C, H, W].

        Returns:
            [B], the mean over pixels.
        """
        c = self.process.coefficients(sigma)  # eq. 7
        weight = self.process.output_weight(sigma, c)
        clean = self.process.encoded(clean)
        x = clean + sigma[:, None, None, None] * unit
        output = network(x * c.in_[:, None, None, None], self.process.noise_level(sigma), labels).float()
        errors = (output - c.target(x, clean)).square().flatten(1).mean(1)
        return errors * weight  # eq. 8

    def sample(
        self,
        count: int | None = None,
        *,
        label: int | str | Sequence[int | str] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int | None = None,
        **settings: Any,
    ) -> NDArray[np.uint8]:
        """Images out of noise: uint8 [count, H, W] or [count, H, W, 3].

        Args:
            count: how many; left out: one for each of `label`, or of the classes.
            label: class by number or name, or several, drawn in turn; None: all classes in turn; -1: no class.
            steps: of the sampler; more are slower and, up to a point, better. Left out: 16, or as measured.
            guidance: weight of the class; 1: none. Left out: 1.2, or as measured.
            seed: the same seed gives the same images; left out: another one each time.
            settings: more keys of the section `sample` of an image job.

        Raises:
            UserError: the model cannot do what is asked.
        """
        return self.draw(count, label=label, steps=steps, guidance=guidance, seed=seed, **settings).images

    def draw(self, count: int | None = None, **wishes: Any) -> DrawnImages:
        """The same as `sample`, with the way out of noise: `images`, `frames` [T, M, H, W(, 3)] and their `sigmas`."""
        settings = self.settings(count, **wishes)
        labels, sigmas = choose_labels(settings, self.trained), choose_sigmas(settings, self.process)
        training = self.training
        self.eval()
        try:
            return draw(self.trained, settings, labels, sigmas, World(0, 1, self.device))
        finally:
            self.train(training)

    def settings(self, count: int | None = None, *, label: Any = None, **wishes: Any) -> ImageSample:
        """The section `sample` that `sample` draws by: what is asked, else as measured, else as the image jobs do."""
        section: dict[str, Any] = {**MANNER, **({"guidance": GUIDANCE} if self._knows_classes else {})}
        section |= {"autoguidance": AUTOGUIDANCE} if self.guide is not None else {}
        section |= self.manner
        section |= {key: value for key, value in wishes.items() if value is not None}
        section.setdefault("seed", int(torch.randint(2**31, ())))
        if label is not None:
            several = [label] if isinstance(label, str) or not isinstance(label, Sequence | np.ndarray) else label
            section["labels"] = [self._label(one) for one in several]
        elif not self._knows_classes:
            section.setdefault("labels", [-1])
        if count is None:
            count = len(section["labels"]) if section.get("labels") else self.no_class
        return validate(ImageSample, {**section, "count": count}, "sample")

    @property
    def _knows_classes(self) -> bool:
        return self.config.conditional and self.no_class > 0

    def _label(self, label: Any) -> int:
        names = self.shape.class_names
        if isinstance(label, str):
            if label not in names:
                raise UserError(f"label: found {label!r}; allowed: {', '.join(names[:20]) or 'none'}")
            return names.index(label)
        if isinstance(label, bool) or not hasattr(label, "__index__"):
            raise UserError(f"label: found {label!r}; expected a class's name or number")
        return int(label)

    def _clean(self, images: Tensor | NDArray[Any]) -> Tensor:
        """y in [-1, 1], float [B, C, H, W]."""
        pixels = torch.as_tensor(images)
        stored = (*self.shape.size[1:], *(() if self.shape.channels == 1 else (3,)))
        if pixels.dtype == torch.uint8 and tuple(pixels.shape[1:]) == stored:
            return pictures.to_float(pixels)
        if not (pixels.is_floating_point() and tuple(pixels.shape[1:]) == self.shape.size):
            raise UserError(
                f"images: found {pixels.dtype} of shape {list(pixels.shape)}; the model takes uint8"
                f" [B, {_sizes(stored)}] or floats in [-1, 1] [B, {_sizes(self.shape.size)}]"
            )
        return pixels.float()

    def _labels(self, labels: Tensor | NDArray[Any] | None, count: int) -> Tensor:
        if labels is None:
            return torch.full((count,), self.no_class)
        indices = torch.as_tensor(labels)
        if indices.shape != (count,) or indices.is_floating_point():
            raise UserError(f"labels: found {indices.dtype} of {tuple(indices.shape)}; expected {count} integers")
        if (
            count
            and indices.device.type == "cpu"
            and not -1 <= int(indices.min()) <= int(indices.max()) < self.no_class
        ):
            raise UserError(
                f"labels: found {int(indices.min())} to {int(indices.max())}; allowed: -1 to {self.no_class - 1}"
            )
        return indices.long()


def _sizes(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


def _shape(shape: ImageShape | Sequence[int], classes: Sequence[str] | int) -> ImageShape:
    if isinstance(shape, ImageShape):
        return shape
    sizes = tuple(int(size) for size in shape)
    if len(sizes) not in (2, 3) or sizes[2:] not in ((), (1,), (3,)):
        raise UserError(f"shape: found {sizes}; allowed: (H, W) and (H, W, 3)")
    names = [str(one) for one in range(classes)] if isinstance(classes, int) else [str(one) for one in classes]
    values = {"channels": sizes[2] if len(sizes) == 3 else 1, "height": sizes[0], "width": sizes[1]}
    return validate(ImageShape, {**values, "class_names": names}, "shape")


def _config(
    config: ImageModel | Mapping[str, Any] | None,
    network: NetworkConfig | Mapping[str, Any] | None,
    sigma_data: float | None,
) -> ImageModel:
    """The section `model`, with what is said apart from it laid over it."""
    values = config.model_dump(mode="json") if isinstance(config, ImageModel) else dict(config or {})
    if network is not None:
        values["network"] = network.model_dump(mode="json") if isinstance(network, NetworkConfig) else dict(network)
    if sigma_data is not None:
        values["process"] = {**(values.get("process") or {}), "sigma_data": sigma_data}
    return validate(ImageModel, values, "model").with_deviation(UNMEASURED)
