"""A small share of `make torture`, a few minutes. Whole pipelines on a faulty bucket and on Vertex are left to it."""

import json
import os
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from core.errors import UserError
from tests.forks import forked
from tests.torture import guided
from tests.torture.fuzz import TARGETS, fuzzed
from tests.torture.trial import Fault, LostError, Tally, repeat

ROOT = Path(__file__).parents[2]
CASES = 100
LONG = (
    "term-text", "term-two", "other-count", "kill-sample", "kill-judge", "kill-run", "storage-20", "storage-50",
    "linkless",
)  # fmt: skip


@pytest.mark.timeout(900)  # on a machine that others use too
@pytest.mark.parametrize(
    ("fault", "trials"),
    [
        ("kill-images", 1),
        ("damage", 2),
        ("damage-shards", 2),
        ("owners", 1),
        ("promote-rollback", 1),
        ("secrets", 2),
        *(pytest.param(fault, 1, marks=pytest.mark.slow) for fault in LONG),
    ],
)
def test_nothing_is_lost(fault: str, trials: int, tmp_path: Path) -> None:
    """In a process of its own: these fork, which a process with torch's threads must not."""
    process = forked(count, fault, trials, tmp_path / "tally.json")
    process.join()
    assert process.exitcode == 0
    tally = Tally(**json.loads((tmp_path / "tally.json").read_text()))
    assert tally.lost == []
    assert tally.tries == tally.survived >= trials


def count(fault: str, trials: int, told: Path) -> None:
    from tests.torture.faults import FAULTS

    told.write_text(json.dumps(asdict(repeat(FAULTS[fault], seed=0, trials=trials))))


def test_the_command_gives_each_fault_a_process_and_prints_a_table() -> None:
    called = subprocess.run([sys.executable, "-m", "tests.torture", "owners", "--trials", "1"], cwd=ROOT,
                            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)  # fmt: skip
    assert called.returncode == 0, called.stderr
    tries, survived, _, lost = called.stdout.splitlines()[2].split("|")[2:6]
    assert int(tries.replace(",", "")) == int(survived.replace(",", "")) >= 1
    assert int(lost) == 0


@pytest.mark.parametrize("name", TARGETS)
def test_bad_input_is_one_line(name: str, tmp_path: Path) -> None:
    assert fuzzed(TARGETS[name][1], CASES, random.Random(0), tmp_path) >= CASES // 2


@pytest.mark.parametrize("name", guided.NAMES)
def test_what_guided_fuzzing_begins_with_is_fed_to_each_parser(name: str, tmp_path: Path) -> None:
    feed, (strategy, _), _ = guided.parsers()[name]
    guided.seed(name, tmp_path / "corpus", tmp_path)
    strategy(tmp_path)
    taken = 0
    for path in (tmp_path / "corpus").iterdir():
        try:
            feed(path.read_bytes(), tmp_path)
            taken += 1
        except UserError as error:
            assert "\n" not in str(error)
    assert taken > 0, "none of the inputs is well-formed"


def test_what_is_lost_is_counted_and_can_be_repeated() -> None:
    def trial(draw: random.Random, folder: Path) -> int:
        if draw.random() < 0.5:
            raise LostError("the third")
        return 2

    tally = repeat(Fault("example", "an example", trial), seed=40, trials=6)
    lost = sum(random.Random(40 + number).random() < 0.5 for number in range(6))
    assert 0 < lost < 6
    assert (tally.tries, tally.survived, len(tally.lost)) == (12 - lost, 12 - 2 * lost, lost)
    seed = int(tally.lost[0].split("--seed ")[1].split()[0])
    assert len(repeat(Fault("example", "an example", trial), seed=seed, trials=1).lost) == 1


def test_an_input_that_raises_anything_but_a_users_error_is_lost(tmp_path: Path) -> None:
    from hypothesis import strategies as st

    def feed(value: int, folder: Path) -> None:
        if value > 1000:
            raise KeyError("a traceback")

    with pytest.raises(LostError, match=r"KeyError.* for 1001"):  # shrunk to the smallest
        fuzzed((lambda folder: st.integers(0, 10_000), feed), 200, random.Random(0), tmp_path)
