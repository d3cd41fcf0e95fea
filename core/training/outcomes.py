"""What each step came to. A GPU keeps it until somebody needs to know, so that no step waits for the one before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LIMIT = 100  # outcomes kept unread: so late at most is a training that is lost stopped


@dataclass(frozen=True)
class Outcome:
    """One step: the examples seen before it, its loss over all processes, its gradient's norm, whether it was skipped
    because one of them was not finite."""

    seen: int
    loss: float
    norm: float
    bad: bool


class Outcomes:
    """Outcomes of steps on `device`, in order."""

    def __init__(self, device: torch.device) -> None:
        self._at_once = device.type == "cpu"
        self._seen: list[int] = []
        self._values: list[Tensor] = []

    def add(self, seen: int, values: Tensor) -> None:
        """What the step after `seen` examples came to: [3], loss, norm and whether it was skipped."""
        self._seen.append(seen)
        self._values.append(values)

    @property
    def due(self) -> bool:
        """Whether to read them now: on a CPU, where that costs nothing, or because there are many."""
        return self._at_once or len(self._values) >= LIMIT

    def read(self) -> list[Outcome]:
        """All that were added since the last time; waits for the device once."""
        if not self._values:
            return []
        rows = torch.stack(self._values).tolist()
        outcomes = [Outcome(seen, row[0], row[1], bool(row[2])) for seen, row in zip(self._seen, rows, strict=True)]
        self._seen, self._values = [], []
        return outcomes
