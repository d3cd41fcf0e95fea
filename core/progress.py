"""Progress of long work: a live line on a terminal, plain lines in a log, JSON events for whoever watches the step."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from types import TracebackType
from typing import Self

from core.printable import printable, say

EVENTS_VARIABLE = "TEXTDIFFUSION_EVENTS"  # file to which events are appended, one JSON object a line
TASK_VARIABLE = "TEXTDIFFUSION_TASK"  # whose work it is, where several steps append to one file of events
PLAIN_SECONDS = 10.0
EVENT_SECONDS = 0.5
WINDOW = 30.0  # seconds over which a rate is taken
SLOW, RECOVERED = 0.5, 0.8  # of the rate at the start: below it is said once, above it may be said again


def per_second(rate: float) -> str:
    """A rate for people; a slow one, which is not 0, with a decimal."""
    return f"{rate:.1f}/s" if 0 < rate < 9.95 else f"{rate:.0f}/s"


class Progress:
    """Reports `done` of `total`, as often as that can be read; use as a context manager.

    Args:
        step: what is being done, for the reader.
        total: how many units there are, or None while that is not known.
        unit: what is counted, for example "examples".
        start: units already done by an earlier process: they do not count as this one's speed.
    """

    def __init__(self, step: str, total: int | None, unit: str, *, start: int = 0) -> None:
        self.step, self.total, self.unit = step, total, unit
        self._lately: deque[tuple[float, int]] = deque([(time.monotonic(), start)])
        self._first_rate: float | None = None
        self._slow = False
        self._last_plain = self._last_event = time.monotonic() - WINDOW
        self._fields: dict[str, float] = {}
        self._events, self._task = os.environ.get(EVENTS_VARIABLE), os.environ.get(TASK_VARIABLE)
        self._live = sys.stderr.isatty()
        self._line_length = 0  # characters on the terminal's line now

    def update(self, done: int, *, total: int | None = None, **fields: float) -> None:
        """Says that `done` units are finished; `fields` (loss, accuracy, ...) are shown with them until new ones."""
        self.total = total if total is not None else self.total
        self._fields |= fields
        now = time.monotonic()
        finished = self.total is not None and done >= self.total
        if not (finished or now - self._last_event >= EVENT_SECONDS):
            return
        self._last_event = now
        rate = self._rate(done, now) if finished or now - self._lately[0][0] >= EVENT_SECONDS else 0.0
        eta = (self.total - done) / rate if self.total and rate > 0 else None
        self._watch(rate, now)
        text = "  ".join(f"{name} {value:.4g}" for name, value in self._fields.items())
        of = f"/{self.total}" if self.total else ""
        left = f"  {eta:.0f} s left" if eta else ""
        line = f"{self.step}: {done}{of} {self.unit}  {per_second(rate)}  {text}{left}"
        if self._live:
            sys.stderr.write(f"\r{printable(line, one_line=True).ljust(self._line_length)}")
            sys.stderr.flush()
            self._line_length = len(line)
        elif finished or now - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = now
            say(line, to=sys.stderr)
        self._tell(done=done, total=self.total, unit=self.unit, rate=rate, eta_seconds=eta, **self._fields)

    def _rate(self, done: int, now: float) -> float:
        """Units a second over the last `WINDOW` seconds."""
        self._lately.append((now, done))
        while len(self._lately) > 2 and self._lately[1][0] <= now - WINDOW:
            self._lately.popleft()
        before, then = self._lately[0]
        return (done - then) / max(now - before, 1e-9)

    def _watch(self, rate: float, now: float) -> None:
        """Says it once when the rate falls well below that of the first window."""
        if now - self._lately[0][0] < WINDOW:
            return
        if self._first_rate is None:
            self._first_rate = rate
        elif self._slow:
            self._slow = rate < RECOVERED * self._first_rate
        elif rate < SLOW * self._first_rate:
            self._slow = True
            line = (
                f"{self.step}: slower: {rate:.0f} {self.unit} a second, {self._first_rate:.0f} at its start;"
                " other work takes the processors"
            )
            sys.stderr.write("\n" if self._line_length else "")
            say(line, to=sys.stderr)
            self._tell(note=line)

    def _tell(self, **event: object) -> None:
        if self._events:
            whose = {"task": self._task} if self._task else {}
            with open(self._events, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({**whose, "step": self.step, **event}) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._line_length:
            sys.stderr.write("\n")
