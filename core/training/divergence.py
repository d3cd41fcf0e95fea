"""When a training is lost: it is stopped early, with the place and the examples named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from core.errors import UserError

MAX_BAD_STEPS = 25  # in a row; fp16 scaling needs up to about 16 to find its scale
FACTOR, ROWS = 10.0, 3  # a loss so many times the untrained network's, in so many rows of the log


class DivergedError(UserError):
    """Loss or gradients are no longer finite, or the loss is far above that of the untrained network."""


def refuse_bad_steps(name: str, bad_steps: int, seen: int, indices: Tensor) -> None:
    """Raises after `MAX_BAD_STEPS` skipped steps in a row; `indices` are the examples of the last, after `seen`."""
    if bad_steps >= MAX_BAD_STEPS:
        raise DivergedError(
            f"{name}: loss or gradients were not finite in {MAX_BAD_STEPS} steps in a row, the last at"
            f" {seen} examples seen (data set indices {indices[:8].tolist()}...);"
            " lower train.learning_rate, or look at the data"
        )


def refuse_growth(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raises if the loss in the log stays far above what it was before anything was learned.

    A function of the log, which is part of every checkpoint: a resumed training decides as an undisturbed one.
    """
    losses = [row["loss"] for row in rows if "loss" in row]
    if len(losses) > ROWS and min(losses[-ROWS:]) > FACTOR * abs(losses[0]):
        raise DivergedError(
            f"{name}: diverged: the loss is {losses[-1]:.3g} at {rows[-1]['examples']} examples seen and was"
            f" {losses[0]:.3g} in the beginning; lower train.learning_rate"
        )


def refuse_not_finite(name: str, loss: float, seen: int) -> None:
    """Raises if the validation loss is not a number: no later one could be compared with it, and JSON has none."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"{name}: the validation loss is {loss} at {seen} examples seen; lower train.learning_rate, or look at"
            " the validation data"
        )
