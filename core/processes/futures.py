"""Work that is handed out ahead, and taken in the order in which it was handed out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def in_order(futures: Iterable[Future[Result]], most: int) -> Iterator[Result]:
    """The result of each of `futures`, in their order; at most `most` of them wait, the rest is not asked for yet.

    Raises:
        Exception: what the work of one raised; those before it were answered.
    """
    waiting: deque[Future[Result]] = deque()
    for future in futures:
        waiting.append(future)
        if len(waiting) == most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
