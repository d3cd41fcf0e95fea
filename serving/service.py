"""Which model is served: found, started, and exchanged for a new champion between requests."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from core.errors import UserError
from factory.finding import FoundModel, find_model, is_folder, of_version
from factory.registry import CHAMPION, Registry
from factory.versions import Version
from serving.asks import Ask, order_of
from serving.card import ModelCard, read_card
from serving.engine import Engine, GoneError
from serving.metrics import Metrics
from serving.options import Options
from serving.orders import Order
from serving.watch import Watch

log = logging.getLogger("serving")


class LateError(Exception):
    """A request's deadline passed."""


class Service:
    """The model in service. A new champion is warm before the old one's last requests are drawn, by the old one."""

    def __init__(self, options: Options, scratch: Path) -> None:
        """Finds the model.

        Raises:
            UserError: there is none, or it is damaged.
        """
        self.options, self._scratch = options, scratch
        self.metrics = Metrics()
        self.watch = Watch(options.watch, options.watch_keep)
        self._copied = self._folder()  # of the model in service, where it is not on this machine
        self.card = self._card(find_model(options.model, options.registry, Path(options.runs).absolute(), self._copied))
        self.failure: Exception | None = None
        self._engine: Engine | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether a model is warm."""
        return self._engine is not None and self._engine.ready

    @property
    def threads(self) -> int | None:
        """With how many threads the model computes: rounding depends on them."""
        return self._engine.threads if self._engine else None

    def measure(self) -> None:
        """Brings what is true at this moment into the metrics."""
        self.metrics.ready.set(self.ready)
        self.metrics.waiting.set(len(self._engine.queue) if self._engine else 0)

    def run(self, give_up: Callable[[], None]) -> None:
        """Starts the model in the background; `give_up` is called if it cannot be served."""
        self._spawn(self._start(give_up))
        self._spawn(self.watch.keep_writing())

    async def draw(self, ask: Ask) -> Order:
        """The finished order of `ask`.

        Raises:
            UserError: it asks for what is not allowed.
            FullError, LateError, LostError, GoneError: it was not drawn.
        """
        (order,) = self.submit([ask])
        await self.finished(order)
        return order

    def submit(self, asks: Sequence[Ask], *, watched: bool = False) -> list[Order]:
        """Queues the orders of one request, all or none; raises as `draw` does."""
        engine, most = self._engine, max(self.options.queue, self.options.max_count)
        if engine is None:
            raise GoneError("the model is loading")
        orders = [order_of(ask, engine.card, self.options) for ask in asks]
        if (count := sum(ask.count for ask in asks)) > most:  # it would not fit at any time
            raise UserError(f"count: found {count} samples in all; allowed: 1 to {most}")
        for order in orders:
            order.watched, order.card = watched, engine.card
            order.leave = partial(engine.queue.discard, order)
        engine.submit(orders)
        return orders

    async def finished(self, order: Order) -> None:
        """Waits for an order until its deadline; raises as `draw` does."""
        seconds = min(order.seconds or self.options.deadline, self.options.deadline)
        try:
            await asyncio.wait({order.done}, timeout=seconds)
            if not order.done.done():
                raise LateError(f"not drawn within {seconds:g} s")
            order.done.result()
            self.watch.drew(order)
        finally:
            order.give_up()
            if order.began is not None:
                self.metrics.waited.observe(order.began - order.arrived)

    async def close(self) -> None:
        """Ends the model after the orders that wait."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._engine is not None:
            await self._engine.drain()
        await self.watch.write()

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, give_up: Callable[[], None]) -> None:
        try:
            self._engine = await self._started(self.card)
        except (UserError, RuntimeError) as error:
            self.failure = error
            give_up()
            return
        if self.options.poll and not is_folder(self.options.model):
            self._spawn(self._follow())
        while self._engine.failure is None:
            await asyncio.sleep(0.5)
        self.failure = self._engine.failure
        give_up()

    async def _started(self, card: ModelCard) -> Engine:
        engine = Engine(card, self.options, self.metrics)
        try:
            await engine.start()
        except BaseException:
            await engine.close()
            raise
        self.card = card
        self.metrics.serves(card.name, card.version)
        self.watch.serves(card)
        log.info("ready", extra={"facts": {"model": card.name, "version": card.version}})
        return engine

    async def _follow(self) -> None:
        """Looks at the champion's pointer now and then."""
        name, _, wanted = self.options.model.partition("@")
        if wanted not in ("", CHAMPION):
            return
        failures = 0
        while True:
            await asyncio.sleep(self.options.poll * 2 ** min(failures, 6))
            try:
                champion = await asyncio.to_thread(Registry(self.options.registry).champion, name)
                if champion is not None and str(champion.version) != self.card.version:
                    await self._exchange(champion)
                failures = 0
            except (UserError, OSError, RuntimeError) as error:
                failures += 1
                log.error("the champion is not served: %s", error)

    async def _exchange(self, champion: Version) -> None:
        """Serves `champion` from now on; what was asked of the model before is drawn by that one."""
        folder = self._folder()
        try:
            source = await asyncio.to_thread(of_version, champion, folder)
            card = await asyncio.to_thread(self._card, source)
            if card.modality != self.card.modality:
                raise UserError(f"{card.name}@{card.version}: is of {card.modality}; {self.card.modality} is served")
            engine = await self._started(card)
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, True)
            raise
        before, old = self._engine, self._copied
        self._engine, self._copied = engine, folder
        assert before is not None
        self._spawn(self._retire(before, old))

    async def _retire(self, engine: Engine, folder: Path) -> None:
        await engine.drain()
        await asyncio.to_thread(shutil.rmtree, folder, True)

    def _card(self, source: FoundModel) -> ModelCard:
        name = source.version.model if source.version else Path(self.options.model.rstrip("/")).name
        return read_card(source, name, self.options)

    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._scratch))
