"""Serving: images a second and latency against the number of clients, with and without batches, beside two plain ways.

    python -m benchmarks.serving --model RUN/steps/train --seconds 20 --rounds 3

Clients ask for one image, wait for it, and ask again. All ways are measured in turn, round after round, so a busy
machine slows all of them. `loop` draws one image after the other in this process, without HTTP; `diffusers` is FastAPI
around diffusers' solver of the same network (benchmarks/naive_server.py). `--ways loop,serve --clients 1 --seconds 2
--rounds 15` compares two of them in short turns. Both sides compute with the same number of threads, or nothing is
measured. Every image of `serve` is compared with the
one that this process draws from the same seed; `changed` counts those that are another one, in any bit.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.results import parser, publish
from core.images import sampling
from core.images.config import ImageSample
from core.images.model import load_model
from core.processes.world import World, own_device

SEEDS = 64  # different images that are asked for
WAYS = ("loop", "serve", "serve --batch 1", "diffusers")


@dataclass
class Seen:
    """What one way did with so many clients."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    changed: int = 0
    failed: int = 0


def row(way: str, clients: int, seen: Seen) -> dict[str, Any]:
    """A row of the table; latencies in milliseconds."""
    cuts = statistics.quantiles(seen.latencies, n=100, method="inclusive")
    return {
        "way": way,
        "clients": clients,
        "images/s": len(seen.latencies) / seen.seconds,
        "p50 ms": 1000 * cuts[49],
        "p95 ms": 1000 * cuts[94],
        "p99 ms": 1000 * cuts[98],
        "requests": len(seen.latencies),
        "changed": seen.changed,
        "failed": seen.failed,
    }


def decoded(png: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(png))) as opened:
        return np.asarray(opened)


async def ask(
    url: str, body: Callable[[int], Any], clients: int, seconds: float, same: Callable[[int, Any], bool], seen: Seen
) -> None:
    """Lets `clients` ask for images during `seconds`."""
    numbers = count()
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=clients)) as client:
        end = time.monotonic() + seconds  # a client takes a while to be made

        async def one() -> None:
            while time.monotonic() < end:
                seed, began = next(numbers) % SEEDS, time.monotonic()
                answer = await client.post(url, json=body(seed))
                seen.latencies.append(time.monotonic() - began)
                if answer.status_code != 200:
                    seen.failed += 1
                elif not same(seed, answer.json()):
                    seen.changed += 1

        began = time.monotonic()
        await asyncio.gather(*(one() for _ in range(clients)))
        seen.seconds += time.monotonic() - began


def drawn(draw: Callable[[int], Any], seconds: float, seen: Seen) -> None:
    """Draws one image after the other during `seconds`."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        before = time.monotonic()
        draw(len(seen.latencies) % SEEDS)
        seen.latencies.append(time.monotonic() - before)
    seen.seconds += time.monotonic() - began


@contextmanager
def server(command: Sequence[str], port: int) -> Iterator[str]:
    """A server's address while it runs, once it has answered."""
    process = subprocess.Popen([sys.executable, "-m", *command], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/generate"
    try:
        end = time.monotonic() + 300
        while True:
            try:
                answer = httpx.post(url, json={"seed": 0}, timeout=60)
                if answer.status_code == 200:
                    break
                if answer.status_code == 500:
                    raise RuntimeError(f"{' '.join(command)}: {answer.text[:200]}")
            except httpx.TransportError:
                pass
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)}: does not answer")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def require_same_threads(url: str) -> None:
    """Raises RuntimeError if the service at `url` computes with another number of threads than this process."""
    theirs, ours = httpx.get(url.rpartition("/")[0] + "/").json()["threads"], torch.get_num_threads()
    if theirs != ours:
        raise RuntimeError(f"{url}: computes with {theirs} threads, this process with {ours}: set OMP_NUM_THREADS")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def reference(model: Path, steps: int) -> tuple[Callable[[int], NDArray[np.uint8]], Callable[[int, Any], bool]]:
    """How this process draws the image of a seed, and whether an answer of the service has that image, to the bit."""
    world = World(0, 1, own_device())
    trained = load_model(model, world.device)
    settings = ImageSample(count=1, steps=steps)
    sigmas = sampling.choose_sigmas(settings, trained.process)

    def draw(seed: int) -> NDArray[np.uint8]:
        chosen = settings.model_copy(update={"seed": seed})
        labels = sampling.choose_labels(chosen, trained)
        return sampling.draw(trained, chosen, labels, sigmas, world, tiled=True).images[0]

    wanted = [draw(seed) for seed in range(SEEDS)]
    return draw, lambda seed, answer: np.array_equal(decoded(answer["samples"][0]["png"]), wanted[seed])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", type=Path, required=True, help="folder of an image model")
    options.add_argument("--seconds", type=float, default=20, help="of each measurement")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=16)
    options.add_argument("--clients", default="1,4,16")
    options.add_argument("--ways", default=",".join(WAYS))
    given = options.parse_args()
    wanted = given.ways.split(",")
    if unknown := set(wanted) - set(WAYS):
        raise SystemExit(f"--ways: found {', '.join(sorted(unknown))}; allowed: {', '.join(WAYS)}")
    draw, same = reference(given.model, given.steps)
    seen: dict[tuple[str, int], Seen] = {}
    serve = ["textdiffusion", "serve", str(given.model), "--steps", str(given.steps), "--poll", "0", "--port"]
    with ExitStack() as stack:
        ways: dict[str, tuple[str, Callable[[int, Any], bool]]] = {}
        for name, command, check in (
            ("serve", serve, same),
            ("serve --batch 1", serve, lambda seed, answer: True),  # batches of one round in their own way
            ("diffusers", ["benchmarks.naive_server", str(given.model)], lambda seed, answer: True),
        ):
            if name not in wanted:
                continue
            port = free_port()
            more = ["--batch", "1"] if name.endswith("1") else [str(given.steps)] if name == "diffusers" else []
            ways[name] = (stack.enter_context(server([*command, str(port), *more], port)), check)
            if name != "diffusers":
                require_same_threads(ways[name][0])
        for _ in range(given.rounds):
            if "loop" in wanted:
                drawn(draw, given.seconds, seen.setdefault(("loop", 1), Seen()))
            for clients in map(int, given.clients.split(",")):
                for name, (url, check) in ways.items():
                    one = seen.setdefault((name, clients), Seen())
                    asyncio.run(ask(url, lambda seed: {"seed": seed}, clients, given.seconds, check, one))
    rows = [row(name, clients, one) for (name, clients), one in seen.items()]
    publish(
        "serving", f"Images over HTTP, {given.steps} steps, by clients that wait for their answer.", rows, given.out
    )
    (given.out / "serving.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
