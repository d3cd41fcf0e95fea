"""Progress of long work: a live line on a terminal, plain lines in a log, JSON events for whoever watches the step."""

from __future__ import annotations

import json
import os
import sys
import time
from types import TracebackType
from typing import Self

from core.printable import printable, say

EVENTS_VARIABLE = "TEXTDIFFUSION_EVENTS"  # file to which events are appended, one JSON object a line
TASK_VARIABLE = "TEXTDIFFUSION_TASK"  # whose work it is, where several steps append to one file of events
PLAIN_SECONDS = 10.0
EVENT_SECONDS = 0.5


class Progress:
    """Reports `done` of `total`; use as a context manager.

    Args:
        step: what is being done, for the reader.
        total: how many units there are, or None while that is not known.
        unit: what is counted, for example "examples".
        start: units already done by an earlier process: they do not count as this one's speed.
    """

    def __init__(self, step: str, total: int | None, unit: str, *, start: int = 0) -> None:
        self.step, self.total, self.unit = step, total, unit
        self._start, self._began = start, time.monotonic()
        self._last_plain = self._last_event = 0.0
        self._events, self._task = os.environ.get(EVENTS_VARIABLE), os.environ.get(TASK_VARIABLE)
        self._live = sys.stderr.isatty()
        self._line_length = 0  # characters on the terminal's line now

    def update(self, done: int, *, total: int | None = None, **fields: float) -> None:
        """Says that `done` units are finished; `fields` (loss, accuracy, ...) are shown with them."""
        self.total = total if total is not None else self.total
        now = time.monotonic()
        rate = (done - self._start) / max(now - self._began, 1e-9)
        eta = (self.total - done) / rate if self.total and rate > 0 else None
        finished = self.total is not None and done >= self.total
        text = "  ".join(f"{name} {value:.4g}" for name, value in fields.items())
        of = f"/{self.total}" if self.total else ""
        left = f"  {eta:.0f} s left" if eta else ""
        line = f"{self.step}: {done}{of} {self.unit}  {rate:.0f}/s  {text}{left}"
        if self._live:
            sys.stderr.write(f"\r{printable(line, one_line=True).ljust(self._line_length)}")
            sys.stderr.flush()
            self._line_length = len(line)
        elif finished or now - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = now
            say(line, to=sys.stderr)
        if self._events and (finished or now - self._last_event >= EVENT_SECONDS):
            self._last_event = now
            whose = {"task": self._task} if self._task else {}
            event = {**whose, "step": self.step, "done": done, "total": self.total, "unit": self.unit, "rate": rate}
            with open(self._events, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({**event, "eta_seconds": eta, **fields}) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._line_length:
            sys.stderr.write("\n")
