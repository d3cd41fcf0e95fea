"""Batches of rows drawn with torch, in the worker; a sample's bits do not depend on what shares its batch.

On every device a batch of images has one size, filled up with copies of its last row, because kernels round differently
in batches of different sizes. Texts on a CPU are not filled up: rows of matrix products come out alike there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from core.config import validate
from core.images import sampling as images
from core.images.config import ImageSample
from core.images.denoising_path import unfinished
from core.images.model import load_model
from core.images.prepared import Prepared
from core.processes.world import own_device
from core.samplers import Step
from core.text import sampling as text
from core.text.config import GAP, TextDraw
from core.text.model import load_models

TEXT_ROWS = 16  # of a batch on a CPU
FRAMES = 40  # states of a denoising that are shown
KEPT = 4  # wishes, such as a guidance, for which images are prepared
Rows = Sequence[Mapping[str, Any]]
Show = Callable[[dict[str, Any], bytes], None]  # facts of a step, and its images' bytes


class Drawer(Protocol):
    """A loaded model."""

    tile: int  # rows in a batch

    def draw(self, section: Mapping[str, Any], rows: Rows, show: Show | None = None) -> tuple[dict[str, Any], bytes]:
        """The samples of `rows`, at most `tile` of one key: header and bytes. `show` is given the states on their way.

        Raises:
            UserError: the section asks for what the model cannot do.
        """


def load(modality: str, parts: Mapping[str, str], batch: int | None) -> Drawer:
    """The model in `parts` on this machine's device, for batches of `batch` rows or of what suits the device.

    Raises:
        UserError: it is damaged.
    """
    if modality == "images":
        return _Images(Path(parts["model"]), batch)
    return _Texts(Path(parts["model"]), parts.get("autoregressive"), batch)


def _filled(rows: Rows, size: int) -> list[Mapping[str, Any]]:
    return [*rows, *[rows[-1]] * (size - len(rows))]


class _Images:
    def __init__(self, folder: Path, batch: int | None) -> None:
        self.device = own_device()
        self.trained = load_model(folder, self.device)
        self.tile = batch or images.tile(self.device)
        self._ready = lru_cache(KEPT)(self._prepared)

    def draw(self, section: Mapping[str, Any], rows: Rows, show: Show | None = None) -> tuple[dict[str, Any], bytes]:
        settings = validate(ImageSample, section, "sample")
        filled = _filled(rows, self.tile)
        none = len(self.trained.shape.class_names)
        labels = np.array([none if row["label"] < 0 else row["label"] for row in filled], np.int64)
        every = -(-settings.steps // FRAMES)

        def report(step: Step) -> None:
            if show and step.index % every == 0:
                state = unfinished(step)[: len(rows)]
                facts = {"step": step.index, "steps": settings.steps, "sigma": round(step.sigma, 5)}
                show({**facts, "shape": state.shape}, state.tobytes())

        drawn = images.draw_batch(
            self._ready(settings),
            settings,
            [images.sample_seed(row["seed"], row["index"]) for row in filled],
            labels,
            images.choose_sigmas(settings, self.trained.process),
            self.device,
            callback=report if show else None,
        )[: len(rows)]
        return {"shape": drawn.shape}, drawn.tobytes()

    def _prepared(self, settings: ImageSample) -> Prepared:
        """The networks as `settings` evaluate them: weights cast once, and on a GPU the path recorded when it is asked
        for again."""
        one = Prepared(self.trained, settings, self.device)
        if self.device.type == "cuda":
            one.record()
        return one


class _Texts:
    def __init__(self, folder: Path, autoregressive: str | None, batch: int | None) -> None:
        self.device = own_device()
        other = Path(autoregressive) if autoregressive else None
        self.trained, self.other = load_models(folder, other, self.device)
        on_cpu = self.device.type == "cpu"
        self.tile = batch or (TEXT_ROWS if on_cpu else images.tile(self.device))
        self.fills_up = not on_cpu

    def draw(self, section: Mapping[str, Any], rows: Rows, show: Show | None = None) -> tuple[dict[str, Any], bytes]:
        prompts = sorted({row["prompt"] for row in rows} - {""})
        settings = validate(TextDraw, {**section, "modes": ["diffusion"], "prompts": prompts}, "sample")
        writer = text.Writer(self.trained, self.other, settings, self.device)
        writer.require_modes()
        blocks = -(-writer.length // writer.block) if not any(GAP in prompt for prompt in prompts) else 1
        total = blocks * settings.steps
        every, seen = -(-total // FRAMES), 0
        filled = [text.Row(**row) for row in (_filled(rows, self.tile) if self.fills_up else rows)]

        def report(gamma: float, tokens: Tensor) -> None:
            nonlocal seen
            if show and seen % every == 0:
                texts = [self.trained.tokenizer.decode(row) for row in tokens[: len(rows)].tolist()]
                show({"step": seen, "steps": total, "gamma": round(gamma, 5), "texts": texts}, b"")
            seen += 1

        return {"texts": text.write_rows(writer, filled, report if show else None)[: len(rows)]}, b""


def no_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
