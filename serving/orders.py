"""Orders and the bounded queue in which their rows wait for a batch.

A row is one sample. Rows whose orders have the same key may share a batch; the oldest row decides which key is next, so
none waits for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

ATTEMPTS = 3  # batches that a row may be part of while the worker dies
FRAMES = 128  # unfinished states that wait for a slow reader; older ones are dropped


class FullError(Exception):
    """The queue has no room; `seconds` from now it may."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the queue is full; try again in {seconds} s")
        self.seconds = seconds


class LostError(Exception):
    """The worker ended each time that it drew this order."""


@dataclass(eq=False)
class Order:
    """What one request asks for. `section` is the validated section `sample`."""

    section: dict[str, Any]
    rows: list[dict[str, Any]]
    key: str
    seconds: float | None = None  # of its deadline
    watched: bool = False
    card: Any = None  # of the model that draws it
    leave: Callable[[], None] = lambda: None
    arrived: float = field(default_factory=time.monotonic)
    began: float | None = None
    samples: dict[int, Any] = field(default_factory=dict)
    frames: asyncio.Queue[dict[str, Any]] = field(default_factory=lambda: asyncio.Queue(FRAMES))
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def seed(self) -> int:
        return int(self.rows[0]["seed"])

    def finish(self, index: int, sample: Any) -> None:
        """Keeps sample `index`; the last one ends the order."""
        self.samples[index] = sample
        if len(self.samples) == len(self.rows) and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """Ends the order with an error."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # it may be that nobody waits any more

    def give_up(self) -> None:
        """Takes an unfinished order out of the queue: nobody waits for it."""
        if not self.done.done():
            self.done.cancel()
            self.leave()

    def show(self, frame: dict[str, Any]) -> None:
        """Hands an unfinished state to who watches."""
        if self.frames.full():
            self.frames.get_nowait()
        self.frames.put_nowait(frame)


@dataclass(eq=False)
class Waiting:
    """A row in the queue."""

    order: Order
    row: dict[str, Any]
    attempts: int = 0


class OrderQueue:
    """Rows in the order of their arrival, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._rows: deque[Waiting] = deque()
        self.filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, orders: Sequence[Order], seconds_a_row: float) -> None:
        """Takes all orders of a request, or raises FullError. More rows than `size` are let in when nothing waits."""
        rows = [Waiting(order, row) for order in orders for row in order.rows]
        if self._rows and len(self._rows) + len(rows) > self.size:
            raise FullError(max(1, round(len(self._rows) * seconds_a_row + 0.5)))
        self._rows.extend(rows)
        self.filled.set()

    def take(self, most: int) -> list[Waiting]:
        """Up to `most` of the oldest rows that may share a batch; rows of ended orders are dropped."""
        batch: list[Waiting] = []
        others: deque[Waiting] = deque()
        while self._rows and len(batch) < most:
            waiting = self._rows.popleft()
            if waiting.order.done.done():
                continue
            mine = not batch or waiting.order.key == batch[0].order.key
            (batch if mine else others).append(waiting)
        self._rows.extendleft(reversed(others))
        if not self._rows:
            self.filled.clear()
        return batch

    def again(self, batch: list[Waiting]) -> None:
        """Puts back rows whose worker died, in front; those that it died of too often fail."""
        for waiting in reversed(batch):
            waiting.attempts += 1
            if waiting.attempts < ATTEMPTS:
                self._rows.appendleft(waiting)
            else:
                waiting.order.fail(LostError(f"the worker ended {ATTEMPTS} times while it drew this"))
        if self._rows:
            self.filled.set()

    def discard(self, order: Order) -> None:
        """Removes the rows of an order that nobody waits for."""
        self._rows = deque(waiting for waiting in self._rows if waiting.order is not order)
        if not self._rows:
            self.filled.clear()

    def fail(self, error: Exception) -> None:
        """Ends all orders that wait."""
        for waiting in self._rows:
            waiting.order.fail(error)
        self._rows.clear()
        self.filled.clear()
