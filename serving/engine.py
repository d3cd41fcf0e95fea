"""One model in service: its queue, its batches one after the other, and its worker, which is replaced when it dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from core.errors import UserError
from serving.card import ModelCard
from serving.metrics import Metrics
from serving.options import Options
from serving.orders import LostError, Order, OrderQueue, Waiting
from serving.process import DeadError, FaultError, Worker

log = logging.getLogger("serving")
DEATHS = 5  # in a row without a finished batch: the service gives up
PAUSE = 0.2  # seconds before the second of them, then twice as many


class GoneError(Exception):
    """The engine takes no orders, or ended before it drew one."""


class Engine:
    """Draws orders for one model. A batch begins as soon as the worker is free; meanwhile rows gather."""

    def __init__(self, card: ModelCard, options: Options, metrics: Metrics) -> None:
        self.card, self._options, self._metrics = card, options, metrics
        self.queue = OrderQueue(options.queue)
        self.failure: Exception | None = None
        self._worker: Worker | None = None
        self._seconds_a_row = 0.1  # guessed, then measured
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether it takes orders: there is a worker, warm, or a new one is about to be."""
        return self._loop is not None and not self._closed and self.failure is None

    @property
    def threads(self) -> int | None:
        """With how many threads its worker computes."""
        return self._worker.threads if self._worker else None

    async def start(self) -> None:
        """Starts worker and batches.

        Raises:
            UserError: the model cannot be loaded.
        """
        await self._revive()
        self._loop = asyncio.create_task(self._run())

    def submit(self, orders: Sequence[Order]) -> None:
        """Lets the orders of a request wait for their batches: all of them or none.

        Raises:
            FullError: too many wait.
            GoneError: the engine is closing.
        """
        if not self.ready:
            raise GoneError("no model is ready")
        self.queue.add(orders, self._seconds_a_row)

    async def drain(self) -> None:
        """Takes no more orders, draws those that wait, and ends."""
        self._closed = True
        while self.failure is None and (len(self.queue) or not self._idle.is_set()):
            await asyncio.sleep(0.02)
        await self.close()

    async def close(self) -> None:
        """Ends at once; orders that wait fail."""
        self._closed = True
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        self.queue.fail(GoneError("the service is stopping"))
        if self._worker is not None:
            await self._worker.close()

    async def _run(self) -> None:
        try:
            while True:
                await self.queue.filled.wait()
                batch = self.queue.take(self._worker.tile if self._worker else 1)
                if not batch:
                    continue
                self._idle.clear()
                await self._draw(batch)
                self._idle.set()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("the engine failed")
            self.failure = error
            self.queue.fail(GoneError("the model failed"))

    async def _draw(self, batch: list[Waiting]) -> None:
        assert self._worker is not None
        began = time.monotonic()
        for order in {waiting.order for waiting in batch}:
            order.began = order.began or began
        watched = any(waiting.order.watched for waiting in batch)
        try:
            header, payload = await self._worker.draw(
                batch[0].order.section,
                [waiting.row for waiting in batch],
                (lambda facts, state: self._show(batch, facts, state)) if watched else None,
            )
        except UserError as error:
            for waiting in batch:
                waiting.order.fail(error)
        except FaultError as error:
            for waiting in batch:
                waiting.order.fail(LostError(f"the worker failed: {error}"))
        except DeadError as error:
            log.warning("%s; its batch is drawn again", error)
            self.queue.again(batch)
            await self._revive()
        else:
            for waiting, sample in zip(batch, _samples(header["done"], payload), strict=True):
                waiting.order.finish(waiting.row["index"], sample)
            seconds = time.monotonic() - began
            self._seconds_a_row += 0.2 * (seconds / len(batch) - self._seconds_a_row)
            self._metrics.drew(len(batch), seconds)

    def _show(self, batch: list[Waiting], facts: dict[str, Any], state: bytes) -> None:
        where = {key: value for key, value in facts.items() if key not in ("shape", "texts")}
        for waiting, sample in zip(batch, _samples(facts, state), strict=True):
            if waiting.order.watched:
                waiting.order.show({**where, "index": waiting.row["index"], "state": sample})

    async def _revive(self) -> None:
        """A new worker. Raises RuntimeError after too many that died without a batch, UserError for a bad model."""
        again = self._worker is not None
        for attempt in range(DEATHS):
            if again or attempt:
                self._metrics.restarts.inc()
            if attempt:
                await asyncio.sleep(PAUSE * 2**attempt)
            try:
                self._worker = await Worker.start(self.card, self._options.batch)
            except DeadError as error:
                log.warning("%s while it loaded the model", error)
            else:
                worker = self._worker
                facts = {"pid": worker.pid, "batch": worker.tile, "threads": worker.threads}
                log.info("worker is warm", extra={"facts": facts})
                return
        raise RuntimeError(f"{DEATHS} workers ended before they had loaded {self.card.name}")


def _samples(header: dict[str, Any], payload: bytes) -> list[Any]:
    """Images uint8 [H, W(, 3)] or texts, one for each row."""
    if "texts" in header:
        return list(header["texts"])
    return list(np.frombuffer(payload, np.uint8).reshape(header["shape"]))
