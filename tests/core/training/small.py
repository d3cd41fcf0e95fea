"""Objectives of every kind, small enough for a dozen steps in a test."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from core.images.config import ImageModel
from core.images.model import ImageShape
from core.images.objective import ImageObjective
from core.text.data import TextSet
from core.text.objective import OBJECTIVES
from core.training.objective import Objective
from tests.core.text.conftest import MODEL, shake


def images() -> Objective:
    network = {"name": "unet", "channels": [8, 16], "blocks": [1, 1], "embedding": 16, "dropout": 0.5}
    model = ImageModel.model_validate({"network": network}).with_deviation(0.5)
    rng = np.random.default_rng(0)
    split = rng.integers(0, 256, (100, 8, 8), dtype=np.uint8), rng.integers(0, 10, 100)
    shape = ImageShape(channels=1, height=8, width=8, class_names=tuple("0123456789"))
    return ImageObjective(model, shape, split, split)


def text(name: str) -> Objective:
    tokens = {split: torch.randint(0, 50, (400,)) for split in ("train", "validation", "test")}
    process = MODEL.process.model_copy(update={"endpoints": 0.3, "prefix_dropout": 0.0})
    data = TextSet({}, tokens, SimpleNamespace(size=50), {})  # type: ignore[arg-type]
    objective = OBJECTIVES[name](MODEL.model_copy(update={"process": process}), data, 0)
    shake(objective.model)
    return objective
