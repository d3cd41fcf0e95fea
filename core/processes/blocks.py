"""Blocks of work done by several processes of this machine, and answered in the order in which they were asked.

What a block is does not depend on how many processes there are, so neither do the answers. A process is a program of
its own, which ends with the one that asks it: no fork copies threads or locks, and a caller's main program is not run
again. Blocks and answers are JSON and arrays.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from queue import SimpleQueue
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import numpy as safetensors

from core.errors import UserError
from core.processes import futures, interpreter, limits

Block = tuple[dict[str, Any], dict[str, NDArray[Any]]]
"""Facts that JSON has, and arrays by name."""
Work = Callable[[Block], Block]
MOST = 64  # processes


def in_order(work: Work, blocks: Iterable[Block], processes: int | None = None) -> Iterator[Block]:
    """work(block) of each of `blocks`, in their order; of two for each process at most, the rest is not asked for yet.

    Args:
        work: a function of a module, which processes find by its name.
        blocks: what to do.
        processes: how many do it; one is this process itself; None: one for each processor, up to `MOST`.

    Raises:
        UserError: `work` raised it for a block; those before it were answered.
        RuntimeError: a process ended in another way.
    """
    processes = processes or min(limits.processors(), MOST)
    if processes == 1:
        yield from map(work, blocks)
        return
    workers: list[_Worker] = []
    free: SimpleQueue[_Worker | None] = SimpleQueue()
    for _ in range(processes):
        free.put(None)

    def answer(block: Block) -> Block:
        worker = free.get()
        if worker is None:  # started when it is needed
            workers.append(worker := _Worker(work))
        try:
            return worker(block)
        finally:
            free.put(worker)

    threads = ThreadPoolExecutor(processes)
    try:
        yield from futures.in_order((threads.submit(answer, block) for block in blocks), 2 * processes)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.end()
        threads.shutdown()


class _Worker:
    """A process that does blocks of `work`, one after the other."""

    def __init__(self, work: Work) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # the processes are the threads
        command = interpreter.program("core.processes.blocks", f"{work.__module__}:{work.__qualname__}")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=interpreter.environment(environment)
        )

    def __call__(self, block: Block) -> Block:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            send(self._process.stdin, block)
            answer = received(self._process.stdout)
        except (OSError, ValueError):
            answer = None
        if answer is None:
            raise RuntimeError(f"a process of this step ended with exit code {self._process.wait()}")
        facts, arrays = answer
        if "error" in facts:
            raise UserError(facts["error"])
        return facts["answer"], arrays

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def send(sink: IO[bytes], block: Block) -> None:
    """Writes a block for `received`."""
    facts, arrays = block
    dense = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # else other numbers are saved
    for data in (json.dumps(facts).encode(), safetensors.save(dense)):
        sink.write(len(data).to_bytes(8, "little"))
        sink.write(data)
    sink.flush()


def received(source: IO[bytes]) -> Block | None:
    """The next block that was sent; None at the end."""
    parts = []
    for _ in range(2):
        size = source.read(8)
        data = source.read(int.from_bytes(size, "little"))
        if len(size) < 8 or len(data) < int.from_bytes(size, "little"):
            return None
        parts.append(data)
    return json.loads(parts[0]), safetensors.load(parts[1])


def main(name: str) -> None:
    """Answers the blocks that come on the standard input, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the process that asks, with which the input ends
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    module, _, function = name.partition(":")
    work: Work = getattr(import_module(module), function)
    while (block := received(sys.stdin.buffer)) is not None:
        try:
            facts, arrays = work(block)
            answer: Block = {"answer": facts}, arrays
        except UserError as error:
            answer = {"error": str(error)}, {}
        send(sink, answer)


if __name__ == "__main__":
    main(sys.argv[1])
