"""A way to train a diffusion model of images and to draw from it: ours, or a network of another package.

Ours goes through the steps of its pipeline; what holds of peers is in benchmarks/peer.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from benchmarks.results import work_folder
from core.images import sampling
from core.images.dataset import ImageDataset
from core.images.modality import shape_of
from core.images.model import load_model
from core.modality import run_here
from core.processes.world import World, own_device
from core.requests import TrainRequest
from core.training.log import TrainingLog
from factory.job import ImageTrainingJob
from pipelines.jobs import load_job

BATCH = 128
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Budget:
    """How long to train: examples, or minutes."""

    examples: int | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Choice:
    """What a training is told beyond its recipe. The learning rate is Muon's where matrices are left to Muon."""

    learning_rate: float
    batch: int
    seed: int = 0


class Draw(Protocol):
    def __call__(self, labels: Labels, guidance: float | None = None, seed: int = 0) -> Images:
        """Images uint8 [N, H, W] for labels [N]; without `guidance` with that of the recipe."""
        ...


@dataclass(frozen=True)
class Trained:
    """What a training cost, a function that draws from it, and one that gives its loss on validation images.

    That loss is of the averaged weights, always with the same noise.
    """

    examples: int
    seconds: float
    draw: Draw
    loss: Callable[[], float]


class Contender(Protocol):
    """One way to train a diffusion model of images."""

    name: str
    conditional: bool
    rates: tuple[float, ...]  # learning rates to choose from
    guidances: tuple[float, ...]  # likewise; the first is the recipe's

    def evaluations(self, guidance: float | None = None) -> int:
        """Of the network, for a sample."""
        ...

    def network(self, data: ImageDataset) -> nn.Module: ...

    def train(self, dataset: Path, budget: Budget, work: Path | None = None, choice: Choice | None = None) -> Trained:
        """What is trained stays in `work`, if that is given, and is found there again."""
        ...


class Ours:
    """A job of this project, through the steps that its pipeline runs: checkpoints, logs and previews included.

    Args:
        name: of the contender.
        job: the predefined job.
        changes: laid over the job's sections.
        rates: learning rates to choose from.
        guidances: likewise, the job's first.
    """

    conditional = True

    def __init__(
        self,
        name: str,
        job: str,
        changes: Mapping[str, Any] | None = None,
        rates: tuple[float, ...] = (),
        guidances: tuple[float, ...] = (),
    ) -> None:
        loaded = load_job(job, layers=[changes or {}])
        assert isinstance(loaded, ImageTrainingJob)
        self.name, self.job, self.rates = name, loaded, rates
        self.guidances = guidances or (loaded.sample.guidance,)

    def evaluations(self, guidance: float | None = None) -> int:
        weight = self.job.sample.guidance if guidance is None else guidance
        return sampling.evaluations(self.job.sample.model_copy(update={"guidance": weight}))

    def network(self, data: ImageDataset) -> nn.Module:
        from core.images.model import build_network

        return build_network(self.job.model, shape_of(data))

    def train(self, dataset: Path, budget: Budget, work: Path | None = None, choice: Choice | None = None) -> Trained:
        settings = self.job.train.model_dump(mode="json")
        settings |= {"minutes": budget.minutes, "examples": budget.examples}
        if choice:
            rate = "muon_learning_rate" if settings["optimizer"] == "muon" else "learning_rate"
            settings |= {rate: choice.learning_rate, "batch_size": choice.batch, "seed": choice.seed}
        if budget.examples:  # for a speed: one row of the log spans the steps, and looks come only after it
            settings |= {"log_every": max(1, budget.examples // settings["batch_size"])}
            settings |= {"validate_every": 1.0, "preview_every": 1.0}
        with work_folder(work) as place:
            out = place / "model"
            model = self.job.model.model_dump(mode="json")
            facts = run_here(
                TrainRequest(modality="images", model=model, train=settings, dataset=dataset, out=out, work=str(place))
            )
            trained = load_model(out, own_device())
            log = TrainingLog.parse((out / "train_log.jsonl").read_bytes())
        seconds = facts["examples_seen"] / log[0]["rate"] if budget.examples else facts["train_seconds"]

        def draw(labels: Labels, guidance: float | None = None, seed: int = 0) -> Images:
            changes = {"count": len(labels), "seed": seed, "batch_size": drawn_at_once()}
            sample = self.job.sample.model_copy(update=changes | ({} if guidance is None else {"guidance": guidance}))
            sigmas = sampling.choose_sigmas(sample, trained.process)
            return sampling.draw(trained, sample, labels, sigmas, World(0, 1, own_device())).images

        losses = [row["validation"]["loss"] for row in log if "validation" in row]
        return Trained(facts["examples_seen"], seconds, draw, lambda: float(losses[-1]))


def drawn_at_once() -> int:
    """Samples in a batch: what fills the device."""
    return 2500 if own_device().type == "cuda" else 250
