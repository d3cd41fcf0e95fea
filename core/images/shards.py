"""Ranges of very many images, for factory/shards.py."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core.config import validate
from core.images.config import ImageSample
from core.images.model import load_model
from core.images.steps import choose_labels, choose_sigmas, draw
from core.processes.world import own_device


def drawer(
    sample: Mapping[str, Any], model: Path, size: int
) -> tuple[Callable[[int, int], bytes], str, dict[str, Any]]:
    """(start, stop) -> an .npz of `images` and `labels` as samples.npz has them; its suffix; facts for the plan.

    Raises:
        UserError: the model is damaged, or the settings ask for what it cannot do.
    """
    settings = validate(ImageSample, {**sample, "count": size}, "sample")
    device = own_device()
    trained = load_model(model, device)
    sigmas, no_class = choose_sigmas(settings, trained.process), len(trained.shape.class_names)
    turn = len(settings.labels or trained.shape.class_names) if trained.config.conditional else 1
    cycle = choose_labels(settings.model_copy(update={"count": turn}), trained)

    def shard(start: int, stop: int) -> bytes:
        labels = cycle[np.arange(start, stop) % turn]
        images, _, _ = draw(trained, settings, labels, sigmas, device, first=start)
        buffer = io.BytesIO()
        stored = np.where(labels == no_class, -1, labels).astype(np.int64)
        np.savez_compressed(buffer, images=images, labels=stored)
        return buffer.getvalue()

    facts = settings.model_dump(mode="json", exclude={"count", "batch_size"})
    return shard, ".npz", {"sample": facts, "weights_sha256": trained.description["weights_sha256"]}
