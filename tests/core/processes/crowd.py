"""Processes that meet as torchrun's workers do, forked from one that has imported torch already.

For claims about what many processes compute. What torchrun adds, restarts and signals, is in test_launch.py.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

import torch

SECONDS = 200.0
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["pytest", "core.images.modality", "core.text.modality"])


def crowd(size: int, work: Callable[..., object], *arguments: Any) -> list[int | None]:
    """Does `work(*arguments)` in `size` processes of one thread; their exit codes. One that fails ends the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [_FORKS.Process(target=_member, args=(rank, size, port, work, arguments)) for rank in range(size)]
    for process in processes:
        process.start()
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
    torch.set_num_threads(1)  # with more of them a product of matrices may be summed in another order
    work(*arguments)
