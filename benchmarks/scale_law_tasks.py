"""What benchmarks/scale_law.py gives its processes to do: one training, and what came of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import fair_text_measures as measures
from benchmarks.contenders import Budget, Choice, Ours
from benchmarks.fair_tasks import JUDGES, verdict
from benchmarks.fair_text_tasks import fitted
from benchmarks.text import WARM_SHARE
from core.images.dataset import ImageDataset
from core.text.objective import AutoregressiveObjective, DiffusionObjective

IMAGE_RATE, TEXT_RATE, BATCH = 0.02, 0.04, 64  # Muon's: the job's, and what validation chose in fair_text
Facts = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A size of one of the jobs' networks: channels of the UNet, or the transformer's width."""

    kind: Literal["images", "autoregressive", "diffusion"]
    widths: tuple[int, ...]

    @property
    def name(self) -> str:
        """As `textdiffusion plan` has it."""
        sizes = "-".join(map(str, self.widths))
        return sizes if self.kind == "images" else f"{self.kind} {sizes}"


IMAGES = tuple(Network("images", widths) for widths in ((16, 24), (32, 48), (64, 96), (96, 144)))
TEXTS = tuple(Network(kind, (width,)) for width in (32, 64, 128, 192) for kind in ("autoregressive", "diffusion"))
TINY_IMAGES, TINY_TEXTS = (Network("images", (8, 16)),), TEXTS[:2]


def image_training(place: Path, job: str, network: Network, examples: int, seed: int, count: int) -> Facts:
    """Loss on validation images and, by the pipeline's judge, what `count` samples are, drawn as the job draws."""
    one = Ours(network.name, job, {"model": {"network": {"channels": network.widths}}})
    trained = one.train(place / "dataset", Budget(examples), None, Choice(IMAGE_RATE, BATCH, seed))
    data = ImageDataset.open(place / "dataset", verify=False)
    labels = np.arange(count) % data.classes
    return {
        "parameters": sum(p.numel() for p in one.network(data).parameters()),
        "examples": trained.examples,
        "seconds": round(trained.seconds, 2),
        "validation loss": trained.loss(),
        **verdict(place, JUDGES[0], trained.draw(labels), labels),
    }


def text_training(place: Path, network: Network, examples: int, seed: int, sizes: measures.Sizes) -> Facts:
    """Loss on validation text at its best look, and bits per character of test text with an evaluation a token.

    Diffusion begins as an autoregressive model, which is two fifths of its examples.
    """
    texts, began = measures.texts_of(place), time.monotonic()
    width = network.widths[0]
    own = replace(sizes, width=width, heads=max(1, width // 64))
    model = own.model(measures.PROCESS)
    first = round(WARM_SHARE * examples)
    reads = network.kind == "autoregressive"
    trained, facts = fitted(AutoregressiveObjective(model, texts, seed), examples if reads else first, TEXT_RATE, seed)
    if not reads:
        objective = DiffusionObjective(model, texts, seed)
        objective.model.autoregressive.load_state_dict(trained.state_dict())  # type: ignore[union-attr]
        trained, facts = fitted(objective, examples - first, TEXT_RATE, seed)
    seconds = time.monotonic() - began
    (bits,) = measures.bits(place, trained, own, evaluations=(1,))
    return {
        "parameters": facts["parameters"],
        "examples": facts["examples"] + (0 if reads else first),
        "seconds": round(seconds, 2),  # looks at validation text counted
        "validation loss": facts["loss"],
        "best at": facts["best at"],
        "bits per character": math.fsum(bits["windows"]) / float(measures.windows_of(place, own).characters.sum()),
    }
