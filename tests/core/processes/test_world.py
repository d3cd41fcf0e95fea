import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.config import TrainConfig
from core.processes.world import World, world
from core.storage.checkpoint import CheckpointStore
from core.training.loop import fit
from tests.core.processes.crowd import crowd
from tests.core.toy import ToyObjective


class Toy(ToyObjective):
    """Ends its process before call `stop` of the loss."""

    def __init__(self, stop: int) -> None:
        super().__init__(dropout=0, exact=True)  # dropout differs between processes by design
        self.stop = stop

    def loss(self, *arguments: Any) -> Any:
        if self.calls == self.stop:
            sys.exit(9)
        return super().loss(*arguments)


def train(folder: Path, stop: int) -> None:
    with world() as w:
        config = TrainConfig(examples=200, batch_size=10, warmup_examples=40, log_every=2, checkpoint_minutes=1e-9)
        result = fit(Toy(stop), config, CheckpointStore(str(folder / "work")), w)
        save_file(result.model.state_dict(), folder / f"rank{w.rank}.safetensors")
        if w.is_first:
            (folder / "log.json").write_text(json.dumps(result.log))


def run(folder: Path, processes: int, *, stop: int = -1) -> list[int | None]:
    folder.mkdir(exist_ok=True)
    return crowd(processes, train, folder, stop)


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in json.loads((folder / "log.json").read_text()) if "loss" in row]


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    assert run(folder, 1) == [0]
    return folder


@pytest.mark.parametrize("processes", [4])
def test_many_processes_train_as_one_does(tmp_path: Path, single: Path, processes: int) -> None:
    """A batch of 10 over 4 processes is uneven: 2, 3, 2 and 3 examples."""
    assert run(tmp_path, processes) == [0] * processes
    assert losses(tmp_path) == pytest.approx(losses(single), rel=1e-6)
    expected = load_file(single / "rank0.safetensors")
    for rank in range(processes):
        for name, value in load_file(tmp_path / f"rank{rank}.safetensors").items():
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-14)


def test_two_processes_killed_and_resumed_are_bit_exact(tmp_path: Path) -> None:
    assert run(tmp_path / "a", 2) == [0, 0]
    assert 9 in run(tmp_path / "b", 2, stop=7)
    assert list((tmp_path / "b/work").glob("manifest-*"))
    assert run(tmp_path / "b", 2) == [0, 0]
    left, right = load_file(tmp_path / "a/rank0.safetensors"), load_file(tmp_path / "b/rank1.safetensors")
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")  # the cut fell between two lines of the log


@pytest.mark.parametrize(("total", "size"), [(10, 3), (1, 4), (7, 7), (128, 5)])
def test_shares_cover_the_batch_once_and_differ_by_at_most_one(total: int, size: int) -> None:
    shares = [World(rank, size, torch.device("cpu")).share(total) for rank in range(size)]
    assert [index for start, stop in shares for index in range(start, stop)] == list(range(total))
    counts = {stop - start for start, stop in shares}
    assert max(counts) - min(counts) <= 1
