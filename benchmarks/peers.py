"""Networks of diffusers and lucidrains' package: by their tutorials, and diffusers' as one who knows would use it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contenders import BATCH, Contender, Ours
from benchmarks.peer import Peer
from core.images.dataset import ImageDataset
from core.training.optimizers import ParameterGroup


class Diffusers(Peer):
    """UNet2DModel with classes, the noise prediction of the training tutorial, DPM-Solver++ for sampling."""

    name, steps, conditional, warmup = "diffusers", 20, True, 500 * BATCH

    def __init__(self) -> None:
        from diffusers import DDPMScheduler

        self.schedule: Any = DDPMScheduler(num_train_timesteps=1000)

    def network(self, data: ImageDataset) -> nn.Module:
        from diffusers import UNet2DModel

        made: Any = UNet2DModel(
            sample_size=data.shape[0],
            in_channels=1,
            out_channels=1,
            block_out_channels=(32, 64, 128),
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            num_class_embeds=data.classes,
        )
        network: nn.Module = made
        return network

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        noise, step = torch.randn_like(images), torch.randint(0, 1000, (len(images),), device=images.device)
        noisy = self.schedule.add_noise(images, noise, step)
        return F.mse_loss(network(noisy, step, class_labels=labels).sample, noise)

    def sample(self, network: nn.Module, labels: Tensor, size: tuple[int, int], guidance: float) -> Tensor:
        from diffusers import DPMSolverMultistepScheduler

        solver = DPMSolverMultistepScheduler.from_config(self.schedule.config)
        solver.set_timesteps(self.steps)
        x = torch.randn(len(labels), 1, *size, device=labels.device)
        for step in solver.timesteps:
            x = solver.step(network(x, step, class_labels=labels).sample, step, x).prev_sample
        return x


class Lucidrains(Peer):
    """denoising-diffusion-pytorch: its Unet, v prediction, sigmoid schedule and DDIM, unconditional."""

    name, steps, betas = "denoising-diffusion-pytorch", 50, (0.9, 0.99)

    def network(self, data: ImageDataset) -> nn.Module:
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet

        unet = Unet(dim=32, dim_mults=(1, 2, 4), channels=1)
        with _quiet():
            return GaussianDiffusion(unet, image_size=data.shape[0], sampling_timesteps=self.steps)

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return network((images + 1) / 2)

    def sample(self, network: nn.Module, labels: Tensor, size: tuple[int, int], guidance: float) -> Tensor:
        with _quiet():
            return network.sample(batch_size=len(labels)) * 2 - 1  # type: ignore[operator]


class RectifiedFlow(Peer):
    """UNet2DModel on 2x2 patches (so at 14x14 and 7x7 for MNIST), trained and sampled as a rectified flow.

    Liu et al. 2022; times drawn as Esser et al. 2024 do, a tenth of the labels dropped for guidance, the schedule and
    the average that our jobs have, Euler's method.

    Args:
        name: of the contender.
        widths: channels at the two resolutions.
        muon: leave hidden matrices to Muon.
        rates: learning rates to choose from.
    """

    conditional, warmup, decays, ema_std = True, 3000, True, 0.05
    betas = (0.9, 0.99)
    steps, dropped = 25, 0.1
    guidances: tuple[float, ...] = (1.25, 1.0, 1.5, 2.0)

    def __init__(self, name: str, widths: tuple[int, int], rates: tuple[float, ...], *, muon: bool = False) -> None:
        self.name, self.widths, self.rates = name, widths, rates
        self.optimizer = "muon" if muon else "adamw"

    def network(self, data: ImageDataset) -> _OnPatches:
        return _OnPatches(data, self.widths)

    def groups(self, network: nn.Module) -> list[ParameterGroup]:
        edges = ("conv_in.", "conv_out.", "class_embedding.")
        named = [(name.removeprefix("unet."), p) for name, p in network.named_parameters()]
        hidden = [p for name, p in named if p.ndim >= 2 and not name.startswith(edges)]
        taken = {id(p) for p in hidden}
        return [
            ParameterGroup(hidden, weight_decay=True, matrices=True),
            ParameterGroup([p for _, p in named if id(p) not in taken], weight_decay=True),
        ]

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        count, where = len(images), images.device
        noise, time = torch.randn_like(images), torch.sigmoid(torch.randn(count, device=where))
        labels = torch.where(torch.rand(count, device=where) < self.dropped, _none(network), labels)
        at = time[:, None, None, None]
        return F.mse_loss(network((1 - at) * images + at * noise, time, labels).float(), noise - images)

    def sample(self, network: nn.Module, labels: Tensor, size: tuple[int, int], guidance: float) -> Tensor:
        x = torch.randn(len(labels), 1, *size, device=labels.device)
        none = torch.full_like(labels, _none(network))
        times = torch.linspace(1, 0, self.steps + 1).tolist()
        for now, then in itertools.pairwise(times):
            time = torch.full((len(labels),), now, device=labels.device)
            if guidance == 1:
                velocity = network(x, time, labels).float()
            else:
                both = network(x.repeat(2, 1, 1, 1), time.repeat(2), torch.cat([labels, none])).float()
                known, plain = both.chunk(2)
                velocity = plain + guidance * (known - plain)
            x = x + (then - now) * velocity
        return x

    def evaluations(self, guidance: float | None = None) -> int:
        return self.steps * (1 + ((self.guidances[0] if guidance is None else guidance) != 1))


def _none(network: nn.Module) -> int:
    """The label that means no class."""
    label: Any = network.no_class
    return int(label)


class _OnPatches(nn.Module):
    """F(x [B, 1, H, W], time [B] in [0, 1], labels [B]); the last label is no class."""

    def __init__(self, data: ImageDataset, widths: tuple[int, int]) -> None:
        from diffusers import UNet2DModel

        super().__init__()
        self.no_class = data.classes
        self.unet: Any = UNet2DModel(
            sample_size=data.shape[0] // 2,
            in_channels=4,
            out_channels=4,
            block_out_channels=widths,
            layers_per_block=1,
            norm_num_groups=16,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            num_class_embeds=data.classes + 1,
        )

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        made = self.unet(F.pixel_unshuffle(x, 2), 1000 * time, class_labels=labels).sample
        return F.pixel_shuffle(made, 2)


def tutorials() -> list[Contender]:
    """Ours, the first DDPM's recipe, and each package as its documentation's example trains it."""
    return [Ours("ours", "mnist-training"), Ours("first DDPM", "mnist-ddpm"), Diffusers(), Lucidrains()]


def fair() -> list[Contender]:
    """What benchmarks/fair.py compares, each with learning rates and guidances of its own to choose from.

    `diffusers` has the FLOP and the parameters of ours, `wider diffusers` 2.3 times and twice as many.
    """
    muon, adamw, guidances = (0.01, 0.02, 0.04, 0.08), (1e-3, 2e-3, 4e-3, 8e-3), (1.2, 1.1, 1.35, 1.5)
    ddim = {"sample": {"sampler": "ddim", "steps": 50}}
    return [
        Ours("ours", "mnist-training", rates=muon, guidances=guidances),
        Ours("ours with AdamW", "mnist-training", {"train": {"optimizer": "adamw"}}, adamw, guidances),
        RectifiedFlow("diffusers", (48, 64), adamw),
        RectifiedFlow("wider diffusers", (64, 96), adamw),
        RectifiedFlow("diffusers with Muon", (48, 64), muon, muon=True),
        Ours("first DDPM by DDIM", "mnist-ddpm", ddim, (5e-4, 1e-3, 2e-3, 4e-3), (1.25, 1.0, 1.5, 2.0)),
    ]


@contextmanager
def _quiet() -> Iterator[Any]:
    """Without the progress bars of a package that has no switch for them."""
    import tqdm.std

    before = tqdm.std.tqdm.__init__

    def silent(self: Any, *arguments: Any, **options: Any) -> None:
        before(self, *arguments, **{**options, "disable": True})

    tqdm.std.tqdm.__init__ = silent
    try:
        yield
    finally:
        tqdm.std.tqdm.__init__ = before
