"""Endurance of the service: its worker is killed now and then, clients are slow, and more than it has room for.

    python -m benchmarks.endurance --model RUN/steps/train --requests 10000 --kills 20

Every image is compared with the one that this process draws from the same seed. A request that is refused with 429
comes again after `Retry-After`, as the answer asks; one that never gets its image is lost. Slow clients send a byte now
and then, or never read. Every thousand answers print a line, and with the start they are `course` in endurance.json,
beside the counts. Exit code 1 if a request was lost or changed, or the server's memory grew by more than a tenth from
the second quarter to the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from benchmarks.results import parser, publish
from benchmarks.serving import SEEDS, free_port, reference

COUNTS = ("asked", "answered", "lost", "changed", "refused", "kills", "slow")
EVERY = 1000  # answers from one line of progress to the next
TRIES = 200  # of one request, refused each time
GROWTH = 1.1
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Endured:
    """What happened to the requests."""

    asked: int
    answered: int = 0
    lost: int = 0
    changed: int = 0
    refused: int = 0
    kills: int = 0
    slow: int = 0
    memory: list[int] = field(default_factory=list)  # bytes of the server, by answered requests
    course: list[dict[str, Any]] = field(default_factory=list)  # at the start, and after each EVERY answers
    began: float = field(default_factory=time.monotonic)

    @property
    def grown(self) -> float:
        """The server's most memory in the last quarter over that in the second; 1 is flat."""
        quarter = max(1, len(self.memory) // 4)
        return max(self.memory[-quarter:]) / max(self.memory[quarter : 2 * quarter] or self.memory)

    @property
    def passed(self) -> bool:
        return self.lost == self.changed == 0 and self.answered == self.asked and self.grown <= GROWTH

    def row(self) -> dict[str, Any]:
        """As a row of the table."""
        facts = {key: getattr(self, key) for key in COUNTS}
        return {
            **facts,
            "seconds": time.monotonic() - self.began,
            "MB": max(self.memory) / 1e6,
            "memory, last to second quarter": self.grown,
        }

    def note(self, memory: int) -> None:
        """A line of how far it has come, each EVERY answers."""
        self.memory.append(memory)
        if self.answered % EVERY == 0 or not self.course:
            seconds = round(time.monotonic() - self.began, 1)
            row = {**{key: getattr(self, key) for key in COUNTS}, "seconds": seconds, "MB": round(memory / 1e6, 1)}
            self.course.append(row)
            print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)


class Server:
    """The service, and the process of its newest worker."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process, self.port, self.worker, self.workers = process, port, 0, 0
        self.warm = asyncio.Event()

    async def read(self) -> None:
        """Reads its log to the end."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if said.get("message") == "worker is warm":
                    self.worker, self.workers = int(said["pid"]), self.workers + 1
                if said.get("message") == "ready":
                    self.warm.set()

    def memory(self) -> int:
        """Bytes that the server itself holds."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE


@contextlib.asynccontextmanager
async def started(model: Path, steps: int, queue: int) -> AsyncIterator[Server]:
    """A service with so small a queue, warm."""
    port = free_port()
    command = ["serve", str(model), "--steps", str(steps), "--poll", "0", "--port", str(port), "--queue", str(queue)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "textdiffusion", *command, "--deadline", "60", stderr=asyncio.subprocess.PIPE
    )
    server = Server(process, port)
    reading = asyncio.create_task(server.read())
    try:
        await asyncio.wait_for(server.warm.wait(), 300)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        reading.cancel()


async def endure(
    server: Server, requests: int, clients: int, kills: int, slow: int, same: Callable[[int, Any], bool]
) -> Endured:
    """Lets `clients` ask for `requests` images in all, while workers die and `slow` others dawdle."""
    done, numbers = Endured(requests), count()
    done.note(server.memory())
    url = f"http://127.0.0.1:{server.port}/generate"
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:

        async def one() -> None:
            while (number := next(numbers)) < requests:
                await _asked(client, url, number % SEEDS, same, done)
                done.note(server.memory())

        others = [asyncio.create_task(_dawdle(server.port, reads, done)) for reads in [i % 2 == 0 for i in range(slow)]]
        killer = asyncio.create_task(_kill(server, kills, done))
        try:
            await asyncio.gather(*(one() for _ in range(clients)))
        finally:
            for task in (*others, killer):
                task.cancel()
            await asyncio.gather(*others, killer, return_exceptions=True)
    return done


async def _asked(
    client: httpx.AsyncClient, url: str, seed: int, same: Callable[[int, Any], bool], done: Endured
) -> None:
    for _ in range(TRIES):
        try:
            answer = await client.post(url, json={"seed": seed})
        except httpx.TransportError:
            done.lost += 1
            return
        if answer.status_code != 429:
            break
        done.refused += 1
        await asyncio.sleep(min(float(answer.headers["Retry-After"]), 2.0))
    if answer.status_code != 200:
        done.lost += 1
        return
    done.answered += 1
    done.changed += not same(seed, answer.json())


async def _kill(server: Server, kills: int, done: Endured) -> None:
    """Kills the worker each time that so many more requests are answered, if it is not the one that was killed last."""
    killed = 0
    while done.kills < kills:
        await asyncio.sleep(0.05)
        due = done.answered * (kills + 1) >= (done.kills + 1) * done.asked
        if due and server.worker != killed:
            killed = server.worker
            with contextlib.suppress(ProcessLookupError):
                os.kill(killed, signal.SIGKILL)
            done.kills += 1


async def _dawdle(port: int, reads: bool, done: Endured) -> None:
    """A client that sends a request byte by byte, or sends one and never reads its answer; again and again."""
    body = b'{"seed": 0, "count": 4, "format": "array"}'
    lines = ("POST /generate HTTP/1.1", "Host: here", "Content-Type: application/json", f"Content-Length: {len(body)}")
    head = "\r\n".join((*lines, "", "")).encode()
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            done.slow += 1
            if reads:
                for byte in head + body:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.05)
            else:
                writer.write(head + body)
                await writer.drain()
            await asyncio.sleep(20)
            writer.close()


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", type=Path, required=True, help="folder of an image model")
    options.add_argument("--requests", type=int, default=10_000)
    options.add_argument("--clients", type=int, default=48, help="more than the queue has room for")
    options.add_argument("--queue", type=int, default=24)
    options.add_argument("--kills", type=int, default=20, help="of the worker")
    options.add_argument("--slow", type=int, default=8, help="clients that dawdle")
    options.add_argument("--steps", type=int, default=8)
    given = options.parse_args()
    same = reference(given.model, given.steps)[1]

    async def run() -> Endured:
        async with started(given.model, given.steps, given.queue) as server:
            return await endure(server, given.requests, given.clients, given.kills, given.slow, same)

    done = asyncio.run(run())
    title = f"{given.requests:,} requests of {given.clients} clients, a queue of {given.queue}, {given.steps} steps."
    publish("endurance", title, [done.row()], given.out)
    facts = {**done.row(), "passed": done.passed, "course": done.course}
    (given.out / "endurance.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    raise SystemExit(0 if done.passed else 1)


if __name__ == "__main__":
    main()
