"""The worker as the service sees it: a process that is started, asked for batches, and noticed when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from typing import Any

from core.errors import UserError
from core.processes import interpreter
from serving.card import ModelCard
from serving.frames import Header, packed, receive

PATIENCE = 10.0  # seconds for a worker to end after its input has


class DeadError(Exception):
    """The worker is gone."""


class FaultError(Exception):
    """The worker failed at a batch, and lives."""


class Worker:
    """One process with one model, warm."""

    def __init__(self, process: Process) -> None:
        self._process, self.tile, self.threads = process, 0, 0

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, card: ModelCard, batch: int | None) -> Worker:
        """A worker that has loaded the model and drawn a batch.

        Raises:
            UserError: the model cannot be loaded.
            DeadError: the process ended.
        """
        process = await asyncio.create_subprocess_exec(
            *interpreter.program("serving.worker"), stdin=PIPE, stdout=PIPE, env=interpreter.environment(os.environ)
        )
        self = cls(process)
        try:
            parts = {name: str(path) for name, path in card.parts.items()}
            asked = {"modality": card.modality, "parts": parts, "batch": batch, "section": card.section}
            header, _ = await self._ask(asked)
        except BaseException:
            await self.close()
            raise
        self.tile, self.threads = int(header["tile"]), int(header["threads"])
        return self

    async def draw(
        self,
        section: dict[str, Any],
        rows: list[dict[str, Any]],
        show: Callable[[dict[str, Any], bytes], None] | None,
    ) -> tuple[Header, bytes]:
        """The samples of `rows`: the worker's last frame.

        Raises:
            UserError: the section asks for what the model cannot do.
            FaultError: something else went wrong.
            DeadError: the process ended.
        """
        return await self._ask({"section": section, "rows": rows, "watched": show is not None}, show)

    async def _ask(
        self, header: Header, show: Callable[[dict[str, Any], bytes], None] | None = None
    ) -> tuple[Header, bytes]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(packed(header))
            await stdin.drain()
            while True:
                answer, payload = await receive(stdout)
                if "frame" not in answer:
                    break
                if show is not None:
                    show(answer["frame"], payload)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise DeadError(f"worker {self.pid} ended with code {await self._process.wait()}") from None
        if "error" in answer:
            raise UserError(str(answer["error"]))
        if "fault" in answer:
            raise FaultError(str(answer["fault"]))
        return answer, payload

    async def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), PATIENCE)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
