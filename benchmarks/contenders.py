"""Image diffusion as a user would pick it: ours, the first DDPM recipe, diffusers, and lucidrains' package.

Each trains on the same images with the recipe that its own documentation gives, and draws with its own fast sampler.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.devices import synchronize
from benchmarks.results import work_folder
from core import storage
from core.images import pictures, sampling
from core.images.dataset import ImageDataset
from core.images.modality import shape_of
from core.images.model import load_model
from core.modality import run_here
from core.processes.world import World, own_device
from core.requests import TrainRequest
from core.storage.model_folder import DESCRIPTION, load_weights, read_description, read_weights, write_model
from core.training.log import TrainingLog
from factory.job import ImageTrainingJob
from pipelines.jobs import load_job

BATCH = 128
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Budget:
    """How long to train: steps of `BATCH` examples, or minutes."""

    steps: int | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Trained:
    """What a training cost, and a function from labels [N] to images uint8 [N, H, W] that draws from it."""

    examples: int
    seconds: float
    draw: Callable[[Labels], Images]


class Contender(Protocol):
    """One way to train a diffusion model of images."""

    name: str
    evaluations: int  # of the network, for a sample
    conditional: bool

    def network(self, data: ImageDataset) -> nn.Module: ...

    def train(self, dataset: Path, budget: Budget, work: Path | None = None) -> Trained:
        """What is trained stays in `work`, if that is given, and is found there again."""
        ...


class Ours:
    """A job of this project, through the steps that its pipeline runs: checkpoints, logs and previews included."""

    conditional = True

    def __init__(self, name: str, job: str) -> None:
        loaded = load_job(job)
        assert isinstance(loaded, ImageTrainingJob)
        self.name, self.job = name, loaded
        self.evaluations = sampling.evaluations(loaded.sample)

    def network(self, data: ImageDataset) -> nn.Module:
        from core.images.model import build_network

        return build_network(self.job.model, shape_of(data))

    def train(self, dataset: Path, budget: Budget, work: Path | None = None) -> Trained:
        settings = self.job.train.model_dump(mode="json")
        settings |= {"minutes": budget.minutes, "examples": budget.steps and budget.steps * BATCH}
        if budget.steps:  # for a speed: one row of the log spans the steps, and looks come only after it
            settings |= {"log_every": settings["examples"] // settings["batch_size"]}
            settings |= {"validate_every": 1.0, "preview_every": 1.0}
        with work_folder(work) as place:
            out = place / "model"
            model = self.job.model.model_dump(mode="json")
            facts = run_here(
                TrainRequest(modality="images", model=model, train=settings, dataset=dataset, out=out, work=str(place))
            )
            trained = load_model(out, own_device())
            log = TrainingLog.parse((out / "train_log.jsonl").read_bytes())
        seconds = facts["examples_seen"] / log[0]["rate"] if budget.steps else facts["train_seconds"]

        def draw(labels: Labels) -> Images:
            sample = self.job.sample.model_copy(update={"count": len(labels)})
            sigmas = sampling.choose_sigmas(sample, trained.process)
            return sampling.draw(trained, sample, labels, sigmas, World(0, 1, own_device())).images

        return Trained(facts["examples_seen"], seconds, draw)


class Peer:
    """A network of another package, with the training loop of that package's example."""

    name = ""
    evaluations = 0
    conditional = False
    learning_rate, betas, warmup = 1e-4, (0.9, 0.999), 0
    ema_decay, ema_every, ema_after = 0.995, 10, 100  # until then the average is the network itself

    def network(self, data: ImageDataset) -> nn.Module:
        raise NotImplementedError

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Of clean images [B, 1, H, W] in [-1, 1]."""
        raise NotImplementedError

    def sample(self, network: nn.Module, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Images [B, 1, H, W] in [-1, 1]."""
        raise NotImplementedError

    def train(self, dataset: Path, budget: Budget, work: Path | None = None) -> Trained:
        data, kept = ImageDataset.open(dataset), work and work / "model"
        if kept and kept.exists():
            facts = read_description(kept, "images")
            network = self.network(data).to(own_device())
            load_weights(network, read_weights(kept, facts), str(kept))
        else:
            network, facts = self.fit(data, budget)
            if kept:
                with storage.atomic_folder(kept, DESCRIPTION) as folder:
                    write_model(folder, network, {"modality": "images", **facts})

        @torch.inference_mode()
        def draw(labels: Labels) -> Images:
            height, width = data.shape[:2]
            parts = torch.from_numpy(labels).to(own_device()).split(250)
            made = [self.sample(network.eval(), part, (height, width)) for part in parts]
            return pictures.to_uint8(torch.cat(made).cpu())

        return Trained(facts["examples"], facts["seconds"], draw)

    def fit(self, data: ImageDataset, budget: Budget) -> tuple[nn.Module, dict[str, Any]]:
        """The averaged network, and the `examples` it saw and the `seconds` it took."""
        where = own_device()
        torch.manual_seed(0)
        network = self.network(data).to(where)
        average = torch.optim.swa_utils.AveragedModel(
            network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(self.ema_decay)
        )
        optimizer = torch.optim.AdamW(network.parameters(), self.learning_rate, betas=self.betas, fused=True)
        began, done = time.monotonic(), 0
        for images, labels in _batches(data):
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * min(1.0, (done + 1) / max(1, self.warmup))
            loss = self.loss(network, images.to(where), labels.to(where))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            done += 1
            if done % self.ema_every == 0:
                if done <= self.ema_after:
                    average.n_averaged.zero_()  # which makes the update a copy
                average.update_parameters(network)
            seconds = time.monotonic() - began
            if done == budget.steps or (budget.minutes and seconds >= 60 * budget.minutes):
                break
        synchronize(where)
        return average.module, {"examples": done * BATCH, "seconds": time.monotonic() - began}


class Diffusers(Peer):
    """UNet2DModel with classes, the noise prediction of the training tutorial, DPM-Solver++ for sampling."""

    name, evaluations, conditional, warmup = "diffusers", 20, True, 500

    def __init__(self) -> None:
        from diffusers import DDPMScheduler

        self.schedule = DDPMScheduler(num_train_timesteps=1000)

    def network(self, data: ImageDataset) -> nn.Module:
        from diffusers import UNet2DModel

        return UNet2DModel(
            sample_size=data.shape[0],
            in_channels=1,
            out_channels=1,
            block_out_channels=(32, 64, 128),
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            num_class_embeds=data.classes,
        )

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        noise, step = torch.randn_like(images), torch.randint(0, 1000, (len(images),), device=images.device)
        noisy = self.schedule.add_noise(images, noise, step)
        return F.mse_loss(network(noisy, step, class_labels=labels).sample, noise)

    def sample(self, network: nn.Module, labels: Tensor, size: tuple[int, int]) -> Tensor:
        from diffusers import DPMSolverMultistepScheduler

        solver = DPMSolverMultistepScheduler.from_config(self.schedule.config)
        solver.set_timesteps(self.evaluations)
        x = torch.randn(len(labels), 1, *size, device=labels.device)
        for step in solver.timesteps:
            x = solver.step(network(x, step, class_labels=labels).sample, step, x).prev_sample
        return x


class Lucidrains(Peer):
    """denoising-diffusion-pytorch: its Unet, v prediction, sigmoid schedule and DDIM, unconditional."""

    name, evaluations, betas = "denoising-diffusion-pytorch", 50, (0.9, 0.99)

    def network(self, data: ImageDataset) -> nn.Module:
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet

        unet = Unet(dim=32, dim_mults=(1, 2, 4), channels=1)
        with _quiet():
            return GaussianDiffusion(unet, image_size=data.shape[0], sampling_timesteps=self.evaluations)

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return network((images + 1) / 2)

    def sample(self, network: nn.Module, labels: Tensor, size: tuple[int, int]) -> Tensor:
        with _quiet():
            return network.sample(batch_size=len(labels)) * 2 - 1  # type: ignore[operator]


def contenders() -> list[Contender]:
    """All of them, ours first."""
    return [Ours("ours", "mnist-training"), Ours("first DDPM", "mnist-ddpm"), Diffusers(), Lucidrains()]


def _batches(data: ImageDataset) -> Iterator[tuple[Tensor, Tensor]]:
    images, labels = torch.from_numpy(np.array(data.images("train"))), torch.from_numpy(data.labels("train"))
    while True:
        for chosen in torch.randperm(len(images)).split(BATCH):
            if len(chosen) == BATCH:
                yield images[chosen][:, None].float() / 127.5 - 1, labels[chosen]


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
