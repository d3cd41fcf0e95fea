"""Blocks of work: answered in order by any number of processes, and nothing is left of one that fails."""

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

from core.errors import UserError
from core.processes.blocks import Block, in_order


def doubled(block: Block) -> Block:
    """The work of these tests."""
    facts, arrays = block
    print("a library says something")
    if facts.get("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if facts.get("refused"):
        raise UserError(f"block {facts['number']}: is refused")
    return {"number": facts["number"], "process": os.getpid()}, {"twice": 2 * arrays["values"]}


def asked(count: int, **last: bool) -> Iterator[Block]:
    for number in range(count):
        yield {"number": number, **(last if number == count - 1 else {})}, {"values": np.arange(number + 3)[::-1]}


def test_blocks_are_answered_in_their_order_by_any_number_of_processes() -> None:
    taken = 0

    def counted() -> Iterator[Block]:
        nonlocal taken
        for block in asked(30):
            taken += 1
            yield block

    answers = in_order(doubled, counted(), 3)
    next(answers)
    assert taken <= 6  # of a million blocks no more are in memory
    numbers, processes = [0], set()
    for facts, arrays in answers:
        numbers.append(facts["number"])
        processes.add(facts["process"])
        assert np.array_equal(arrays["twice"], 2 * np.arange(facts["number"] + 3)[::-1])
    assert numbers == list(range(30))
    assert 1 <= len(processes) <= 3
    assert os.getpid() not in processes
    alone = [facts for facts, _ in in_order(doubled, asked(30), 1)]
    assert [facts["number"] for facts in alone] == numbers
    assert {facts["process"] for facts in alone} == {os.getpid()}


@pytest.mark.parametrize(("how", "message"), [("refused", "block 2: is refused"), ("killed", "exit code -9")])
def test_a_block_that_fails_ends_all_after_those_before_it(how: str, message: str) -> None:
    answers, before = in_order(doubled, asked(3, **{how: True}), 2), []
    with pytest.raises(UserError if how == "refused" else RuntimeError, match=message):
        for facts, _ in answers:
            before.append(facts["process"])
    assert len(before) == 2
    for process in before:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
