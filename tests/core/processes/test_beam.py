"""Work done on Apache Beam's own local runner: equal to that of blocks, each part answered once, whatever is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core import storage
from core.errors import UserError
from core.processes import beam, blocks, interpreter
from core.processes.blocks import Block

pytest.importorskip("apache_beam")


def tripled(block: Block) -> Block:
    """The work of these tests; who does it leaves its process number."""
    facts, arrays = block
    mark = Path(facts["marks"]) / f"{facts['number']}-{time.time_ns()}"
    mark.write_text(str(os.getpid()))
    if facts["number"] == facts.get("killed") and len(list(mark.parent.glob(f"{facts['number']}-*"))) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if facts["number"] == facts.get("slow"):
        time.sleep(120)
    if facts["number"] in facts.get("refused", ()):
        raise UserError(f"part {facts['number']}: is refused")
    return {"number": facts["number"]}, {"thrice": 3 * arrays["values"]}


def asked(marks: Path, count: int = 6, **more: object) -> Iterator[Block]:
    marks.mkdir(exist_ok=True)
    for number in range(count):
        yield {"number": number, "marks": str(marks), **more}, {"values": np.arange(number + 3)}


def same(one: Iterator[Block], other: Iterator[Block]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a == b and np.array_equal(x["thrice"], y["thrice"]) for (a, x), (b, y) in pairs) and bool(pairs)


def marked(marks: Path) -> list[int]:
    """The parts that somebody began, once for each time."""
    return sorted(int(path.name.partition("-")[0]) for path in marks.iterdir())


def test_a_worker_that_is_killed_costs_its_part_alone(tmp_path: Path) -> None:
    """By two processes; the killed part is done again, those that were answered are not, and nothing is left."""
    marks, place = tmp_path / "marks", tmp_path / "work"
    answers = beam.in_order(tripled, asked(marks, killed=4), str(place), 2)
    assert same(answers, blocks.in_order(tripled, asked(tmp_path / "other"), processes=1))
    assert set(marked(marks)) == set(range(6))
    assert marked(marks).count(4) == 2
    assert {path.read_text() for path in marks.iterdir()} != {str(os.getpid())}
    assert not place.exists()


def test_what_is_refused_is_said_for_the_first_part_and_asked_again_alone(tmp_path: Path) -> None:
    marks, place = tmp_path / "marks", tmp_path / "work"
    with pytest.raises(UserError, match=r"^part 1: is refused \(and 1 more parts were refused\)$"):
        list(beam.in_order(tripled, asked(marks, refused=[1, 3]), str(place), 1))
    assert len(storage.list_files(place / "answered")) == 4
    for path in marks.iterdir():
        path.unlink()
    with pytest.raises(UserError, match="part 1: is refused"):
        list(beam.in_order(tripled, asked(marks, refused=[1, 3]), str(place), 1))
    assert marked(marks) == [1, 3]


@pytest.mark.slow
def test_a_killed_step_takes_its_workers_along_and_the_next_goes_on(tmp_path: Path) -> None:
    marks, place = tmp_path / "marks", tmp_path / "work"
    program = (
        "from pathlib import Path; from core.processes import beam; from tests.core.processes import test_beam as t;"
        f"list(beam.in_order(t.tripled, t.asked(Path({str(marks)!r}), slow=5), {str(place)!r}, 2))"
    )
    environment = interpreter.environment(os.environ)
    step = subprocess.Popen([sys.executable, "-c", program], env=environment, start_new_session=True)
    try:
        waits = time.monotonic() + 120
        while not marks.exists() or 5 not in marked(marks) or len(storage.list_files(place / "answered")) < 3:
            assert time.monotonic() < waits
            assert step.poll() is None
            time.sleep(0.1)
        workers = {int(path.read_text()) for path in marks.iterdir()}
        with pytest.raises(UserError, match="the work of Beam"):  # two at once
            list(beam.in_order(tripled, asked(marks, slow=5), str(place), 2))
    finally:
        os.kill(step.pid, signal.SIGKILL)
        step.wait()
    waits = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < waits, "a worker outlived its step"
        time.sleep(0.1)
    done = set(storage.list_files(place / "answered"))
    assert done
    for name in done:
        assert blocks.received((place / "answered" / name).open("rb")) is not None
    for path in marks.iterdir():
        path.unlink()
    (marks / "5-0").write_text("0")
    again = list(beam.in_order(tripled_at_once, asked(marks, slow=5), str(place), 2))
    assert [facts["number"] for facts, _ in again] == list(range(6))


def tripled_at_once(block: Block) -> Block:
    """The same without waiting."""
    return tripled(({**block[0], "slow": None}, block[1]))


def test_without_beam_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"Apache Beam is not installed: pip install 'textdiffusion\[beam\]'"):
        list(beam.in_order(tripled, asked(tmp_path / "marks"), str(tmp_path / "work"), 1))
    assert not (tmp_path / "work").exists()
