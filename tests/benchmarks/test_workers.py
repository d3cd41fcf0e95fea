"""Tasks that fail or take too long cost no other, here and in processes of their own."""

import math
import time
from functools import partial

from benchmarks.workers import Workers

TASKS = {
    "root": partial(math.sqrt, 4),
    "fails": partial(math.sqrt, -1),
    "next": partial(math.sqrt, 9),
    "hangs": partial(time.sleep, 600),
    "never": partial(math.sqrt, 16),
}


def test_what_ends_in_time_is_given_and_a_failure_in_its_place() -> None:
    ended = dict(Workers(1).run(TASKS, time.monotonic() + 2.5))
    assert isinstance(ended.pop("fails"), ValueError)
    assert ended == {"root": 2, "next": 3}


def test_nothing_is_begun_without_time() -> None:
    assert not list(Workers(1).run(TASKS, time.monotonic() + 1))


def test_processes_are_stopped_in_the_middle_and_others_begin_anew() -> None:
    workers = Workers(2)
    hanging = {key: task for key, task in TASKS.items() if key != "never"}
    ended = []
    for key, _ in workers.run(hanging, time.monotonic() + 45):
        ended.append(key)
        if len(ended) == 3:
            workers.close()  # as at the end of the time
            break
    assert sorted(ended) == ["fails", "next", "root"]
    assert dict(workers.run({"again": partial(math.sqrt, 25)}, time.monotonic() + 45)) == {"again": 5}
    workers.close()
