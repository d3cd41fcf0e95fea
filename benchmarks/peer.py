"""A network of another package in a bare training loop: its data on the device, no checkpoints, no logs.

So a peer loses no time to what it does not need.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contenders import BATCH, Budget, Choice, Images, Labels, Trained, drawn_at_once
from benchmarks.devices import synchronize
from core import storage
from core.config import TrainConfig
from core.images import pictures
from core.images.dataset import ImageDataset
from core.processes.world import own_device
from core.storage.model_folder import DESCRIPTION, load_weights, read_description, read_weights, write_model
from core.training import precision
from core.training.ema import PowerEMA
from core.training.graphs import Graphs
from core.training.objective import Batch
from core.training.optimizers import Optimizers, ParameterGroup
from core.transfer import to_device

VALIDATION = 1024  # images


class Peer:
    """A network of another package, with the training loop of that package's example."""

    name = ""
    steps = 0  # of sampling
    conditional = False
    rates: tuple[float, ...] = (1e-4,)
    guidances: tuple[float, ...] = (1.0,)
    optimizer, betas, warmup, decays = "adamw", (0.9, 0.999), 0, False  # a warm-up in examples
    ema_decay, ema_every, ema_after = 0.995, 10, 100  # steps; until then the average is the network itself
    ema_std: float | None = None  # of a power-function average, in the place of that

    def network(self, data: ImageDataset) -> nn.Module:
        raise NotImplementedError

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Of clean images [B, 1, H, W] in [-1, 1]."""
        raise NotImplementedError

    def sample(self, network: nn.Module, labels: Tensor, size: tuple[int, int], guidance: float) -> Tensor:
        """Images [B, 1, H, W] in [-1, 1]."""
        raise NotImplementedError

    def evaluations(self, guidance: float | None = None) -> int:
        return self.steps

    def groups(self, network: nn.Module) -> list[ParameterGroup]:
        """Of the optimizer."""
        return [ParameterGroup(list(network.parameters()), weight_decay=True)]

    def train(self, dataset: Path, budget: Budget, work: Path | None = None, choice: Choice | None = None) -> Trained:
        data, kept = ImageDataset.open(dataset), work and work / "model"
        if kept and kept.exists():
            facts = read_description(kept, "images")
            network = self.network(data).to(own_device())
            load_weights(network, read_weights(kept, facts), str(kept))
        else:
            network, facts = self.fit(data, budget, choice or Choice(self.rates[0], BATCH))
            if kept:
                with storage.atomic_folder(kept, DESCRIPTION) as folder:
                    write_model(folder, network, {"modality": "images", **facts})
        where, network = own_device(), network.eval()
        number_format = precision.choose(where)

        @torch.inference_mode()
        def draw(labels: Labels, guidance: float | None = None, seed: int = 0) -> Images:
            torch.manual_seed(seed)
            height, width = data.shape[:2]
            weight = self.guidances[0] if guidance is None else guidance
            parts = torch.from_numpy(labels).to(where).split(drawn_at_once())
            with number_format.autocast(where):
                made = [self.sample(network, part, (height, width), weight).float() for part in parts]
            return pictures.to_uint8(torch.cat(made).cpu())

        @torch.inference_mode()
        def loss() -> float:
            torch.manual_seed(0)
            images, labels = _resident(data, "validation", VALIDATION, where)
            parts = zip(images.split(256), labels.split(256), strict=True)
            with number_format.autocast(where):
                losses = [self.loss(network, pictures.to_float(x), y).float() * len(x) for x, y in parts]
            return float(torch.stack(losses).sum() / len(images))

        return Trained(facts["examples"], facts["seconds"], draw, loss)

    def fit(self, data: ImageDataset, budget: Budget, choice: Choice) -> tuple[nn.Module, dict[str, Any]]:
        """The averaged network, and the `examples` it saw and the `seconds` it took."""
        where = own_device()
        number_format = precision.choose(where)
        torch.manual_seed(choice.seed)
        network = self.network(data).to(where)
        network.train()
        average, optimizer = _Average(self, network), self._optimizers(network, choice, where)
        images, labels = _resident(data, "train", None, where)
        graphs = Graphs(on=where.type == "cuda")

        def step(given: Batch) -> Tensor:
            """All of a step on the device: ours is recorded as a CUDA graph, so a peer's is too."""
            rate, kept, pixels, classes = given.tensors
            optimizer.zero_grad()
            with number_format.autocast(where):
                loss = self.loss(network, pictures.to_float(pixels), classes)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.set_learning_rate(rate)
            optimizer.step(~norm.isfinite())
            average.follow(kept)
            return norm

        began, seen, batch = time.monotonic(), 0, choice.batch
        order, at = torch.randperm(len(images), device=where), 0
        while True:
            if at + batch > len(images):
                order, at = torch.randperm(len(images), device=where), 0
            chosen, at = order[at : at + batch], at + batch
            numbers = torch.tensor([self._factor(seen, batch, budget.examples), average.kept(seen + batch, batch)])
            given = Batch((*to_device(numbers, where).unbind(), images[chosen], labels[chosen]))
            graphs(step, given)
            average.now_and_then()
            seen += batch
            seconds = time.monotonic() - began
            if (budget.examples and seen >= budget.examples) or (budget.minutes and seconds >= 60 * budget.minutes):
                break
        synchronize(where)
        return average.network, {"examples": seen, "seconds": time.monotonic() - began}

    def _factor(self, seen: int, batch: int, total: int | None) -> float:
        """On the learning rate: a linear warm-up and, where it `decays`, a linear way to zero from a tenth on."""
        rise = min(1.0, (seen + batch) / max(1, self.warmup))
        return rise * min(1.0, (1 - seen / total) / 0.9) if self.decays and total else rise

    def _optimizers(self, network: nn.Module, choice: Choice, where: torch.device) -> Optimizers:
        rates = {"muon_learning_rate" if self.optimizer == "muon" else "learning_rate": choice.learning_rate}
        settings = {"optimizer": self.optimizer, "betas": self.betas, "weight_decay": 0.01, **rates}
        config = TrainConfig.model_validate({"examples": 1, "batch_size": choice.batch, **settings})
        return Optimizers(self.groups(network), config, where)


class _Average:
    """The average of a peer's weights, by its recipe."""

    def __init__(self, peer: Peer, network: nn.Module) -> None:
        self._peer, self._current, self._done = peer, network, 0
        self._power = PowerEMA(network, peer.ema_std) if peer.ema_std else None
        rule = torch.optim.swa_utils.get_ema_multi_avg_fn(peer.ema_decay)
        self._plain = None if self._power else torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=rule)

    def kept(self, seen: int, batch: int) -> float:
        """The share of the old average after `seen` examples."""
        return self._power.kept(seen, batch) if self._power else 1.0

    def follow(self, kept: Tensor) -> None:
        """Part of every step, on the device."""
        if self._power:
            self._power.update(self._current, kept)

    def now_and_then(self) -> None:
        """After a step: what does not belong to every one."""
        self._done += 1
        if self._plain and self._done % self._peer.ema_every == 0:
            if self._done <= self._peer.ema_after:
                self._plain.n_averaged.zero_()  # which makes the update a copy
            self._plain.update_parameters(self._current)

    @property
    def network(self) -> nn.Module:
        return self._power.model if self._power else self._plain.module  # type: ignore[union-attr]


def _resident(data: ImageDataset, split: Any, count: int | None, where: torch.device) -> tuple[Tensor, Tensor]:
    """Images and labels of a split, or the first `count` of them, on the device."""
    images, labels = np.array(data.images(split)[:count]), data.labels(split)[:count]
    return torch.from_numpy(images).to(where), torch.from_numpy(np.array(labels)).to(where)
