"""Work cut into parts, done by all processes of a group, its results gathered in the order of the parts.

What a part is (a batch, a metric, a block of training images) does not depend on how many processes there are, and
one process does a part whole. Whoever adds results up does so in the order of the parts; so sums of floating-point
numbers are the same for any number of processes, which they would not be if each process summed its share first.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import numpy as safetensors

from core.errors import UserError
from core.processes import world as distributed
from core.processes.world import World

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")


def values(work: Callable[[int], T], count: int, world: World) -> list[T]:
    """[work(0), ..., work(count - 1)] in every process, each done by one of them. Results are JSON values.

    Raises:
        UserError: a part raised it; every process does.
    """
    return _gathered(work, count, world, lambda value: json.dumps(value).encode(), json.loads)


def arrays(work: Callable[[int], Arrays], count: int, world: World) -> list[Arrays]:
    """Likewise, for results that are arrays by name.

    Raises:
        UserError: a part raised it; every process does.
    """
    return _gathered(work, count, world, _pack, _unpack)


def _gathered(
    work: Callable[[int], T],
    count: int,
    world: World,
    pack: Callable[[list[T]], bytes],
    unpack: Callable[[bytes], list[T]],
) -> list[T]:
    if world.size == 1:
        return [work(part) for part in range(count)]
    failure: UserError | None = None
    own: list[T] = []
    try:
        own = [work(part) for part in range(world.rank, count, world.size)]  # neighbours cost alike: dealt in turn
    except UserError as error:
        failure = error
    errors = [text.decode() for text in distributed.gather(str(failure or "").encode(), world) if text]
    if errors:
        raise failure or UserError(errors[0])
    shares = [unpack(share) for share in distributed.gather(pack(own), world)]
    return [shares[part % world.size][part // world.size] for part in range(count)]


def _pack(parts: list[Arrays]) -> bytes:
    named = {f"{index}/{name}": array for index, part in enumerate(parts) for name, array in part.items()}
    return safetensors.save({name: np.ascontiguousarray(array) for name, array in named.items()})


def _unpack(data: bytes) -> list[Arrays]:
    parts: dict[int, Arrays] = {}
    for key, array in safetensors.load(data).items():
        index, _, name = key.partition("/")
        parts.setdefault(int(index), {})[name] = array
    return [parts[index] for index in sorted(parts)]
