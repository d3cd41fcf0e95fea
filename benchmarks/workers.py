"""Tasks beside one another until a moment comes, whatever is unfinished then: for machines that are lent for minutes.

A small network leaves a GPU idle between two launches, so several trainings share one, each in a process with a core
of its own. With one worker tasks run here, one after the other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Key = TypeVar("Key")
LEAST = 2.0  # seconds that are worth beginning something


class OutOfTimeError(Exception):
    """An item took longer than it may."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTimeError inside after `seconds`."""

    def over(*_: object) -> None:
        raise OutOfTimeError(f"stopped after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Workers:
    """`count` processes that keep what they imported from one `run` to the next."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def run(self, tasks: Mapping[Key, Callable[[], Any]], until: float) -> Iterator[tuple[Key, Any]]:
        """(key, what the task returned or the exception it raised) as they end, up to `until` of the monotonic clock.

        Tasks begin in the order of the mapping. What has not ended by then is stopped and gives nothing.
        """
        if self.count == 1:
            yield from self._here(tasks, until)
            return
        self._pool = self._pool or ProcessPoolExecutor(
            self.count, multiprocessing.get_context("spawn"), _begin, (max(1, (os.cpu_count() or 1) // self.count),)
        )
        futures = {self._pool.submit(task): key for key, task in tasks.items()}
        lost = False  # a process died, and with it the pool
        try:
            for future in as_completed(futures, timeout=max(0.0, until - time.monotonic())):
                lost = lost or isinstance(future.exception(), BrokenProcessPool)
                yield futures[future], future.exception() or future.result()
        except TimeoutError:
            lost = True
        if lost:
            self.close()

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()
        self._pool = None

    @staticmethod
    def _here(tasks: Mapping[Key, Callable[[], Any]], until: float) -> Iterator[tuple[Key, Any]]:
        for key, task in tasks.items():
            left = until - time.monotonic()
            if left < LEAST:
                return
            try:
                with limit(left):
                    result = task()
            except OutOfTimeError:
                return
            except Exception as error:
                result = error
            yield key, result


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
