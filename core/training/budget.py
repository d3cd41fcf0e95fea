"""How long training goes on, and the learning rate along the way, as functions of examples seen."""

from __future__ import annotations

import math

from core.config import TrainConfig


class Budget:
    """A budget in examples, or one in minutes that becomes one in examples.

    Minutes are turned into examples once, by the speed measured until the decay of the learning rate begins
    (`decay_start`). Before that the rate does not depend on the total, after it the total is fixed and saved: so the
    learning rate stays a pure function of examples seen, and resuming is exact.

    Args:
        config: the budget and the shape of the schedule.
        total: the total fixed by an earlier process of the same training, if any.
    """

    def __init__(self, config: TrainConfig, total: int | None = None) -> None:
        self._config = config
        self.total = total if total is not None else _whole_batches(config.examples, config.batch_size)
        self._first: tuple[int, float] | None = None

    def observe(self, examples_seen: int, seconds: float) -> bool:
        """Takes in how far training has come in how much time; True if that fixed the total."""
        if self.total is not None or self._config.minutes is None:
            return False
        if self._first is None:  # the first step compiles, allocates and warms caches: not the speed of the rest
            self._first = (examples_seen, seconds)
            return False
        budget = 60 * self._config.minutes
        if seconds < self._config.decay_start * budget:
            return False
        examples, time = examples_seen - self._first[0], seconds - self._first[1]
        rest = max(budget - seconds, 0.0) * examples / max(time, 1e-9)
        self.total = _whole_batches(examples_seen + max(1, round(rest)), self._config.batch_size)
        return True

    def finished(self, examples_seen: int) -> bool:
        return self.passed(examples_seen, 1)

    def passed(self, examples_seen: int, fraction: float) -> bool:
        """Whether `fraction` of the total is behind; never before the total is known."""
        return self.total is not None and examples_seen >= fraction * self.total

    def learning_rate(self, examples_seen: int) -> float:
        """The factor in [0, 1] on the peak learning rate for the step that begins after `examples_seen`."""
        start = self._config.decay_start
        warmup = self._config.warmup_examples
        if self.total is not None:
            warmup = min(warmup, int(start * self.total))
        rise = min(1.0, (examples_seen + self._config.batch_size) / warmup) if warmup else 1.0
        if self.total is None or self._config.decay == "constant":
            return rise
        passed = min(1.0, max(0.0, examples_seen / self.total - start) / (1 - start)) if start < 1 else 0.0
        fall = 1 - passed if self._config.decay == "linear" else 0.5 * (1 + math.cos(math.pi * passed))
        return rise * fall

    def crosses(self, examples_seen: int, fraction: float) -> bool:
        """Whether the step that ended at `examples_seen` passed a multiple of `fraction` of the total."""
        if self.total is None:
            return False
        every = max(self._config.batch_size, math.ceil(fraction * self.total))
        return examples_seen // every > (examples_seen - self._config.batch_size) // every


def _whole_batches(examples: int | None, batch_size: int) -> int | None:
    """`examples` rounded up to whole batches: no batch is ever partial, so none is weighted wrongly."""
    return None if examples is None else -(-examples // batch_size) * batch_size
