import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.processes.world import World

ROOT = Path(__file__).parents[3]
WORKER = """
import json, sys
from pathlib import Path
from safetensors.torch import save_file
from core.storage.checkpoint import CheckpointStore
from core.config import TrainConfig
from core.processes.world import world
from core.training.loop import fit
from tests.core.toy import ToyObjective

folder, batch, examples, stop = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
class Toy(ToyObjective):
    def __init__(self):
        super().__init__(dropout=0, exact=True)  # dropout differs between processes by design
    def loss(self, *arguments):
        if self.calls == stop:
            sys.exit(9)
        return super().loss(*arguments)
with world() as w:
    config = TrainConfig(examples=examples, batch_size=batch, warmup_examples=40, log_every=2, checkpoint_minutes=1e-9)
    result = fit(Toy(), config, CheckpointStore(str(folder / "work")), w)
    save_file(result.model.state_dict(), folder / f"rank{w.rank}.safetensors")
    if w.is_first:
        (folder / "log.json").write_text(json.dumps(result.log))
"""


def run(folder: Path, processes: int, *, batch: int = 10, examples: int = 200, stop: int = -1) -> int:
    folder.mkdir(exist_ok=True)
    script = folder / "worker.py"
    script.write_text(WORKER)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    arguments = [str(script), str(folder), str(batch), str(examples), str(stop)]
    command = [sys.executable, *(torchrun if processes > 1 else []), *arguments]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=environment, capture_output=True, timeout=200).returncode


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in json.loads((folder / "log.json").read_text()) if "loss" in row]


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    assert run(folder, 1) == 0
    return folder


@pytest.mark.parametrize("processes", [4])
def test_many_processes_train_as_one_does(tmp_path: Path, single: Path, processes: int) -> None:
    """A batch of 10 over 4 processes is uneven: 2, 3, 2 and 3 examples."""
    assert run(tmp_path, processes) == 0
    assert losses(tmp_path) == pytest.approx(losses(single), rel=1e-6)
    expected = load_file(single / "rank0.safetensors")
    for rank in range(processes):
        for name, value in load_file(tmp_path / f"rank{rank}.safetensors").items():
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-14)


def test_two_processes_killed_and_resumed_are_bit_exact(tmp_path: Path) -> None:
    assert run(tmp_path / "a", 2) == 0
    assert run(tmp_path / "b", 2, stop=7) != 0
    assert list((tmp_path / "b/work").glob("manifest-*"))
    assert run(tmp_path / "b", 2) == 0
    left, right = load_file(tmp_path / "a/rank0.safetensors"), load_file(tmp_path / "b/rank1.safetensors")
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")  # the cut fell between two lines of the log


@pytest.mark.parametrize(("total", "size"), [(10, 3), (1, 4), (7, 7), (128, 5)])
def test_shares_cover_the_batch_once_and_differ_by_at_most_one(total: int, size: int) -> None:
    shares = [World(rank, size, torch.device("cpu")).share(total) for rank in range(size)]
    assert [index for start, stop in shares for index in range(start, stop)] == list(range(total))
    counts = {stop - start for start, stop in shares}
    assert max(counts) - min(counts) <= 1
