"""What the items of benchmarks/gpu_slot.py share: the device, the time they have, the models they train."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.config import TrainConfig
from core.images.model import ImageShape
from core.images.objective import ImageObjective
from core.processes.world import World
from core.storage.checkpoint import CheckpointStore
from core.text.data import TextSet
from core.text.objective import OBJECTIVES
from core.training.loop import fit
from core.training.objective import Objective
from core.training.result import FitResult
from factory.job import ImageTrainingJob, TextTrainingJob
from pipelines.jobs import load_job

TINY_TEXT = {
    "model": {
        "context": 16,
        "transformer": {"width": 32, "depth": 1, "heads": 2},
        "process": {"blocks": [8], "lanes": [1], "tilt": [1, 4], "embedding": 16},
    },
    "sample": {"gap": 4},  # a gap is shorter than a block
}
Facts = dict[str, Any]


@dataclass
class Slot:
    """Where and how much: `tiny` is a dry run."""

    device: torch.device
    work: Path
    tiny: bool
    data_dir: str | None = None
    results: Facts = field(default_factory=dict)  # of the item that runs

    def steps(self, many: int) -> int:
        return 4 if self.tiny else many

    @property
    def job(self) -> ImageTrainingJob:
        job = load_job("digits" if self.tiny else "mnist-training")
        assert isinstance(job, ImageTrainingJob)
        return job

    @property
    def text_job(self) -> TextTrainingJob:
        job = load_job("shakespeare-training", layers=[TINY_TEXT] if self.tiny else [])
        assert isinstance(job, TextTrainingJob)
        return job

    def images(self, job: ImageTrainingJob | None = None) -> ImageObjective:
        """Of images of MNIST's shape that are noise: the speed is the same."""
        side, rng = 8 if self.tiny else 28, np.random.default_rng(0)
        split = rng.integers(0, 256, (2000 if self.tiny else 60_000, side, side), dtype=np.uint8)
        labels = rng.integers(0, 10, len(split))
        shape = ImageShape(channels=1, height=side, width=side, class_names=tuple("0123456789"))
        return ImageObjective((job or self.job).model, shape, (split, labels), (split[:64], labels[:64]))

    def texts(self, name: str) -> Objective:
        class Tokens:
            size = 1024

            def decode(self, ids: list[int]) -> str:
                return " ".join(map(str, ids))

        tokens = {split: torch.randint(0, 1024, (20_000,)) for split in ("train", "validation", "test")}
        return OBJECTIVES[name](self.text_job.model, TextSet({}, tokens, Tokens(), {}), 0)  # type: ignore[arg-type]

    def train(self, objective: Objective, settings: TrainConfig, steps: int, name: str = "", **more: Any) -> FitResult:
        """A training of `steps` steps with two rows of the log, the first of which holds what is done once."""
        size = 4 if self.tiny else more.get("batch_size", settings.batch_size)
        changes = {
            "examples": steps * size,
            "minutes": None,
            "log_every": steps // 2,
            "guide_at": None,
            **more,
            "batch_size": size,
        }
        config = settings.model_copy(update={"validate_every": 1.0, "preview_every": 1.0, **changes})
        folder = self.work / (name or f"run-{time.monotonic_ns()}")
        return fit(objective, config, CheckpointStore(str(folder)), World(0, 1, self.device), name="slot")
