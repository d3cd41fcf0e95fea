"""Endurance of the service: its worker is killed now and then, clients are slow, and more than it has room for.

    python -m benchmarks.endurance --model RUN/steps/train --requests 10000 --kills 20

Every image is compared with the one that this process draws from the same seed. A request that is refused with 429
comes again after `Retry-After`, as the answer asks; one that never gets its image is lost. Slow clients send a byte now
and then, or never read. Every thousand answers print a line, and with the start they are `course` in endurance.json,
beside the counts; the file is written with each line, so a run that is cut off leaves what it saw. Exit code 1 if a
request was lost or changed, a kill was left out, or the memory of the server or of its workers grew by more than a
tenth from the second quarter to the last. 600 requests to `digits` with two kills took 45 s on two cores that others
kept busy, so 10,000 with twenty fit in fifteen minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from benchmarks.results import parser, publish
from benchmarks.serving import SEEDS, free_port, reference

COUNTS = ("asked", "answered", "lost", "changed", "refused", "kills", "kills left", "slow")
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
    kills_left: int = 0
    slow: int = 0
    why: Counter[str] = field(default_factory=Counter)  # requests were lost
    memory: list[int] = field(default_factory=list)  # bytes of the server, by answered requests
    workers: list[int] = field(default_factory=list)  # bytes of its worker
    course: list[dict[str, Any]] = field(default_factory=list)  # at the start, and after each EVERY answers
    began: float = field(default_factory=time.monotonic)

    @property
    def passed(self) -> bool:
        whole = self.answered == self.asked and self.lost == self.changed == self.kills_left == 0
        return whole and max(grown(self.memory), grown(self.workers)) <= GROWTH

    def row(self) -> dict[str, Any]:
        """As a row of the table."""
        return {
            **self._counts(),
            "seconds": time.monotonic() - self.began,
            "MB": max(self.memory) / 1e6,
            "last to second quarter": grown(self.memory),
            "worker MB": max(self.workers) / 1e6,
            "its last to second quarter": grown(self.workers),
        }

    def note(self, memory: int, worker: int) -> bool:
        """Whether this is one of each EVERY answers, of which a line is printed."""
        self.memory.append(memory)
        self.workers.append(worker)
        told = self.answered % EVERY == 0 or not self.course
        if told:
            megabytes = {"MB": round(memory / 1e6, 1), "worker MB": round(worker / 1e6, 1)}
            row = {**self._counts(), "seconds": round(time.monotonic() - self.began, 1), **megabytes}
            self.course.append(row)
            print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        return told

    def write(self, out: Path) -> None:
        """endurance.json, also before the end."""
        facts = {**self.row(), "passed": self.passed, "why lost": dict(self.why), "course": self.course}
        (out / "endurance.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")

    def _counts(self) -> dict[str, int]:
        return {key: getattr(self, key.replace(" ", "_")) for key in COUNTS}


def grown(memory: Sequence[int]) -> float:
    """The most memory in the last quarter over that in the second; 1 is flat."""
    quarter = max(1, len(memory) // 4)
    return max(memory[-quarter:]) / max(1, *(memory[quarter : 2 * quarter] or memory))


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

    def memory(self) -> tuple[int, int]:
        """Bytes that the server itself and its worker hold; 0 of one that has ended."""
        return _resident(self.process.pid), _resident(self.worker)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except OSError:
        return 0


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
    server: Server, requests: int, clients: int, kills: int, slow: int, same: Callable[[int, Any], bool], out: Path
) -> Endured:
    """Lets `clients` ask for `requests` images in all, while workers die and `slow` others dawdle; tells `out`."""
    done, numbers = Endured(requests, kills_left=kills), count()

    def note() -> None:
        if done.note(*server.memory()):
            done.write(out)

    note()
    url = f"http://127.0.0.1:{server.port}/generate"
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:

        async def one() -> None:
            while (number := next(numbers)) < requests:
                await _asked(client, url, number % SEEDS, same, done)
                note()

        others = [asyncio.create_task(_dawdle(server.port, reads, done)) for reads in [i % 2 == 0 for i in range(slow)]]
        killer = asyncio.create_task(_kill(server, done))
        try:
            await asyncio.gather(*(one() for _ in range(clients)))
        finally:
            for task in (*others, killer):
                task.cancel()
            await asyncio.gather(*others, killer, return_exceptions=True)
    done.write(out)
    return done


async def _asked(
    client: httpx.AsyncClient, url: str, seed: int, same: Callable[[int, Any], bool], done: Endured
) -> None:
    for _ in range(TRIES):
        try:
            answer = await client.post(url, json={"seed": seed})
        except httpx.TransportError as error:
            done.lost, done.why[type(error).__name__] = done.lost + 1, done.why[type(error).__name__] + 1
            return
        if answer.status_code != 429:
            break
        done.refused += 1
        await asyncio.sleep(min(float(answer.headers["Retry-After"]), 2.0))
    if answer.status_code != 200:
        done.lost += 1
        done.why[f"{answer.status_code}: {answer.text[:200]}"] += 1
        return
    done.answered += 1
    done.changed += not same(seed, answer.json())


async def _kill(server: Server, done: Endured) -> None:
    """Kills the worker each time that so many more requests are answered, if it is not the one that was killed last."""
    killed, kills = 0, done.kills_left
    while done.kills_left:
        await asyncio.sleep(0.05)
        due = done.answered * (kills + 1) >= (done.kills + 1) * done.asked
        if due and server.worker != killed:
            killed = server.worker
            with contextlib.suppress(ProcessLookupError):
                os.kill(killed, signal.SIGKILL)
            done.kills, done.kills_left = done.kills + 1, done.kills_left - 1


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
    given.out.mkdir(parents=True, exist_ok=True)
    same = reference(given.model, given.steps)[1]

    async def run() -> Endured:
        async with started(given.model, given.steps, given.queue) as server:
            return await endure(server, given.requests, given.clients, given.kills, given.slow, same, given.out)

    done = asyncio.run(run())
    title = f"{given.requests:,} requests of {given.clients} clients, a queue of {given.queue}, {given.steps} steps."
    publish("endurance", title, [done.row()], given.out)
    raise SystemExit(0 if done.passed else 1)


if __name__ == "__main__":
    main()
