"""How a training ends: with a model, or stopped by a signal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.training.precision import Precision


@dataclass
class FitResult:
    """A finished training."""

    model: nn.Module  # averaged weights
    guide: dict[str, Tensor]  # averaged weights at the fraction `guide_at` of the budget; empty without one
    examples_seen: int
    seconds: float
    log: list[dict[str, Any]]
    previews: dict[str, bytes]
    precision: Precision
    device: torch.device
    machine: dict[str, Any]
    resumed_at: int
    skipped_steps: int


class InterruptedTrainingError(UserError):
    """A signal asked training to stop; a checkpoint was written first."""

    EXIT_CODE = 143  # as of a process that SIGTERM ended: whoever restarts it need not tell them apart
