"""Processes that meet as torchrun's workers do, forked.

For claims about what many processes compute. What torchrun adds, restarts and signals, is in test_launch.py.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

from tests.forks import forked

SECONDS = 200.0


def crowd(size: int, work: Callable[..., object], *arguments: Any) -> list[int | None]:
    """Does `work(*arguments)` in `size` processes of one thread; their exit codes. One that fails ends the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [forked(_member, rank, size, port, work, arguments) for rank in range(size)]
    end = time.monotonic() + SECONDS
    while running := [process for process in processes if process.exitcode is None]:
        if any(process.exitcode for process in processes) or time.monotonic() > end:
            for process in running:
                process.kill()
        connection.wait([process.sentinel for process in running], timeout=1)
    return [process.exitcode for process in processes]


def _member(rank: int, size: int, port: int, work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    work(*arguments)
