"""All that changes while training, besides tensors; goes into a checkpoint's JSON as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrainingState:
    """The clock, the budget it found, and what steps came to."""

    examples_seen: int = 0
    seconds: float = 0.0
    total: int | None = None
    best_loss: float | None = None
    bad_validations: int = 0
    bad_steps: int = 0  # in a row
    skipped_steps: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)  # that the newest steps were made on
    losses: list[float] = field(default_factory=list)  # of good steps since the last row of the log, of all processes
