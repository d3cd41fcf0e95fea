"""One step on many processes: the environment that torchrun sets becomes a process group; gradients are summed exactly,
and results are gathered.

With one process everything here does nothing, so that the loop reads the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from core.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Which of how many processes this is, and its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """True for the process that writes files."""
        return self.rank == 0

    def share(self, total: int) -> tuple[int, int]:
        """[start, stop) of this process's part of a global batch of `total`; parts differ by at most one."""
        return self.rank * total // self.size, (self.rank + 1) * total // self.size


SINGLE_PROCESS = World(0, 1, torch.device("cpu"))
"""What is not divided."""


def require_shares(batch_size: int, world: World) -> None:
    """Raises UserError for a batch that leaves a process without an example: it would have no gradient to add."""
    if batch_size < world.size:
        raise UserError(f"train.batch_size: {batch_size} is less than one example for each of {world.size} processes")


LONG = timedelta(days=1)
"""Between two meetings of processes that draw or measure: all of their batches."""


def own_device() -> torch.device:
    """The device of a process that works alone: a GPU if there is one, the CPU otherwise."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def world(patience: timedelta = timedelta(minutes=10)) -> Iterator[World]:
    """Joins the process group that torchrun's RANK, WORLD_SIZE and LOCAL_RANK describe; leaves it at the end.

    Args:
        patience: how long a process waits for another one. One that is gone is noticed at once, by torchrun; this is
            for those that hang, and longer than the longest work between two meetings.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = own_device()
    if device.type == "cuda":
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if size == 1:
        yield World(0, 1, device)
        return
    # Numbers of the host are exchanged there, so that no process waits for its GPU to say whether there was a signal.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=patience)
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()


def average_gradients(model: nn.Module, world: World) -> None:
    """Averages gradients over all processes with one flattened all-reduce: what one process would have computed."""
    if world.size == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world.size
    parts = flat.split([gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [part.view_as(one) for one, part in zip(gradients, parts, strict=True)])


def sum_over_processes(values: Tensor) -> Tensor:
    """Element-wise sum over all processes."""
    if dist.is_available() and dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


def largest(values: Sequence[float], world: World) -> list[float]:
    """The largest of all processes' values, one by one: the slowest one's time; 1 if a flag is true anywhere."""
    if world.size == 1:
        return list(values)
    numbers = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return numbers.tolist()


def broadcast_weights(model: nn.Module, world: World) -> None:
    """Gives every process the first one's weights and buffers."""
    if world.size > 1:
        for value in [*model.parameters(), *model.buffers()]:
            dist.broadcast(value.data, src=0)


def from_first(values: dict[str, Any], world: World) -> dict[str, Any]:
    """The first process's `values` (JSON) in every process."""
    if world.size == 1:
        return values
    text = torch.tensor(list(json.dumps(values).encode()), dtype=torch.uint8)
    length = torch.tensor(len(text))
    dist.broadcast(length, src=0)
    if not world.is_first:
        text = torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(text, src=0)
    return dict(json.loads(bytes(text.tolist())))


def gather(data: bytes, world: World) -> list[bytes]:
    """What each process gives, in the order of ranks, in every process."""
    if world.size == 1:
        return [data]
    length = torch.tensor(len(data))
    lengths = [torch.zeros_like(length) for _ in range(world.size)]
    dist.all_gather(lengths, length)
    longest = max(int(one) for one in lengths)
    padded = torch.frombuffer(bytearray(data).ljust(longest + 1, b"\0"), dtype=torch.uint8)
    parts = [torch.empty_like(padded) for _ in range(world.size)]
    dist.all_gather(parts, padded)
    return [part[: int(size)].numpy().tobytes() for part, size in zip(parts, lengths, strict=True)]


def by_first(work: Callable[[], T], world: World) -> T:
    """What `work` returns (JSON) in the first process, which alone does it.

    Raises:
        UserError: the first process raised it. Every process does, so that none waits for one that is gone.
    """
    if world.size == 1:
        return work()
    failure: UserError | None = None
    outcome: dict[str, Any] = {}
    if world.is_first:
        try:
            outcome = {"value": work()}
        except UserError as error:
            failure, outcome = error, {"error": str(error)}
    outcome = from_first(outcome, world)
    if "error" in outcome:
        raise failure or UserError(outcome["error"])
    value: T = outcome["value"]
    return value


def agree(value: int, world: World) -> bool:
    """Whether `value` is the same in all processes; the answer is."""
    if world.size == 1:
        return True
    pair = torch.tensor([value, -value])
    dist.all_reduce(pair, op=dist.ReduceOp.MAX)
    return int(pair[0]) == -int(pair[1])
