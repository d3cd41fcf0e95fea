"""What texts look like while they are denoised: the frames of trajectory.jsonl, which the report plays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from core.text.model import TrainedText

FRAMES, TEXTS = 64, 4  # at most, and in each


def interval(evaluations: int) -> int:
    """How many of `evaluations` pass from one frame to the next."""
    return max(1, -(-evaluations // FRAMES))


@dataclass
class Trajectory:
    """Takes in the most probable tokens of each evaluation, and keeps those of every so many: on the device, so that
    no step waits for it."""

    every: int
    trained: TrainedText
    _kept: list[tuple[float, Tensor]] = field(default_factory=list)
    _seen: int = 0

    def __call__(self, gamma: float, tokens: Tensor) -> None:
        if self._seen % self.every == 0:
            self._kept.append((gamma, tokens[:TEXTS]))
        self._seen += 1

    @property
    def frames(self) -> list[dict[str, Any]]:
        """What was kept."""
        decode = self.trained.tokenizer.decode
        return [
            {"gamma": round(gamma, 4), "tokens": [[decode([index]) for index in row] for row in tokens.tolist()]}
            for gamma, tokens in self._kept
        ]
