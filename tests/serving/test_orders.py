"""The queue: who shares a batch, who is next, what happens to rows whose worker died."""

from __future__ import annotations

import pytest

from serving.orders import ATTEMPTS, FRAMES, FullError, LostError, Order, OrderQueue
from tests.serving.conftest import in_a_loop


def order(key: str, rows: int) -> Order:
    return Order({}, [{"seed": 1, "index": i, "count": rows} for i in range(rows)], key)


@in_a_loop
async def test_rows_of_one_key_share_a_batch_and_the_oldest_decides() -> None:
    queue, first, other, last = OrderQueue(99), order("a", 3), order("b", 2), order("a", 3)
    for one in (first, other, last):
        queue.add([one], 0.1)
    batches = []
    while len(queue):
        batches.append([(waiting.order, waiting.row["index"]) for waiting in queue.take(4)])
    assert batches == [
        [(first, 0), (first, 1), (first, 2), (last, 0)],
        [(other, 0), (other, 1)],
        [(last, 1), (last, 2)],
    ]
    assert not queue.filled.is_set()


@in_a_loop
async def test_a_full_queue_says_when_there_may_be_room() -> None:
    queue = OrderQueue(4)
    queue.add([order("a", 9)], 2.0)  # larger than the queue, but nothing waits
    with pytest.raises(FullError) as refused:
        queue.add([order("a", 1)], 2.0)
    assert refused.value.seconds == 18
    assert len(queue) == 9


@in_a_loop
async def test_the_orders_of_a_request_are_let_in_together_or_not_at_all() -> None:
    queue = OrderQueue(4)
    queue.add([order("a", 3), order("b", 3)], 2.0)  # larger than the queue, but nothing waits
    queue.take(9)
    with pytest.raises(FullError):
        queue.add([order("a", 1), order("b", 1)], 2.0)
    assert len(queue) == 3


@in_a_loop
async def test_rows_of_a_dead_worker_come_first_again_and_fail_in_the_end() -> None:
    queue, first, other = OrderQueue(9), order("a", 2), order("a", 1)
    queue.add([first, other], 0.1)
    for _ in range(ATTEMPTS):
        batch = queue.take(2)
        assert [waiting.order for waiting in batch] == [first, first]
        queue.again(batch)
    assert isinstance(first.done.exception(), LostError)
    assert [waiting.order for waiting in queue.take(2)] == [other]


@in_a_loop
async def test_an_order_that_nobody_waits_for_is_not_drawn() -> None:
    queue, first, other = OrderQueue(9), order("a", 2), order("a", 1)
    queue.add([first, other], 0.1)
    first.leave = lambda: queue.discard(first)
    first.give_up()
    assert [waiting.order for waiting in queue.take(4)] == [other]


@in_a_loop
async def test_a_slow_reader_of_a_stream_costs_no_memory() -> None:
    one = order("a", 1)
    for step in range(3 * FRAMES):
        one.show({"step": step})
    assert one.frames.qsize() == FRAMES
    assert (await one.frames.get())["step"] == 2 * FRAMES
