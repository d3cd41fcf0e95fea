"""Training cut on some number of processes and resumed on another: every batch holds the same examples and noise.

A regression in float64 without dropout, so that sums in another order differ by rounding alone.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from functools import cache
from importlib import import_module
from pathlib import Path

from factory.steps import STEPS
from tests.torture.training import TERM_SECONDS, port_of, tail
from tests.torture.trial import Fault, environment, fork, require, wait

EXAMPLES, BATCH = 300, 10
COUNTS = (1, 2, 3)  # a batch of 10 is uneven on 3
Batches = dict[int, list[int]]  # by what seeds the noise of a step: the examples in it


def train(folder: Path, record: Path) -> int:
    """Trains; what each batch held goes to `record`, weights of the first process to `folder`/weights."""
    from components.step import step
    from core.config import TrainConfig
    from core.processes.world import world
    from core.storage.checkpoint import CheckpointStore, serialize
    from core.training.loop import fit
    from tests.core.toy import ToyObjective

    class Recorded(ToyObjective):
        def batch(self, indices, draws):  # type: ignore[no-untyped-def]
            with record.open("a") as stream:
                stream.write(f"{draws.generator.initial_seed()} {' '.join(map(str, indices.tolist()))}\n")
            return super().batch(indices, draws)

    config = TrainConfig(examples=EXAMPLES, batch_size=BATCH, warmup_examples=20, checkpoint_minutes=1e-9)
    with step(), world() as here:
        result = fit(Recorded(dropout=0, exact=True), config, CheckpointStore(str(folder / "work")), here)
        if here.is_first:
            (folder / "weights").write_bytes(serialize(result.model.state_dict()))
    return 0


def start(folder: Path, count: int, run: int) -> list[int]:
    """Starts `count` processes, each with its own record of this run."""
    for module in ("components.step", "core.training.loop", "tests.core.toy", *STEPS["train"].imports("images")):
        import_module(module)
    group = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port_of()}
    pids = []
    for rank in range(count):
        with environment(**group, RANK=str(rank)):
            record = folder / f"run{run}-rank{rank}"
            pids.append(fork(lambda record=record: train(folder, record), folder / f"log{rank}.txt"))
    return pids


def batches(folder: Path, run: int) -> Batches:
    """What the batches of a run held, of all its processes together."""
    found: Batches = {}
    for path in folder.glob(f"run{run}-rank*"):
        for line in path.read_text().splitlines():
            seed, *indices = map(int, line.split())
            found.setdefault(seed, []).extend(indices)
    return {seed: sorted(indices) for seed, indices in found.items()}


@cache
def undisturbed(owner: int) -> tuple[Batches, bytes, float]:
    """Batches and weights of one process that nothing disturbed, and its seconds."""
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        folder = Path(name)
        pids = start(folder, 1, 0)
        began = time.monotonic()  # what is imported once, before the first fork, does not count
        (code,) = [wait(pid, 120) for pid in pids]
        require(code == 0, f"undisturbed training ended with {code}: {tail(folder)}")
        return batches(folder, 0), (folder / "weights").read_bytes(), time.monotonic() - began


def moved(draw: random.Random, folder: Path) -> int:
    """Two cuts at random moments, each time another number of processes; the last run goes to the end."""
    import torch

    from core.storage.checkpoint import deserialize

    expected, weights, seconds = undisturbed(os.getpid())
    counts = [draw.choice(COUNTS)]
    for run in range(2):
        pids = start(folder, counts[-1], run)
        time.sleep(draw.uniform(0.2, 1.5) * seconds)
        number = draw.choice([signal.SIGKILL, signal.SIGTERM])
        for pid in pids:
            os.kill(pid, number)
        for pid in pids:
            wait(pid, 2 * TERM_SECONDS)
        for seed, indices in batches(folder, run).items():
            inside = seed in expected and set(indices) <= set(expected[seed])
            require(inside, f"on {counts[-1]} processes a batch holds {indices}, not {expected.get(seed)}")
        counts.append(draw.choice([count for count in COUNTS if count != counts[-1]]))
    codes = [wait(pid, 120) for pid in start(folder, counts[-1], 2)]
    require(set(codes) == {0}, f"resumed on {counts} processes it ended with {codes}: {tail(folder)}")
    for seed, indices in batches(folder, 2).items():
        require(indices == expected[seed], f"resumed on {counts[-1]} processes a batch holds other examples")
    found, wanted = deserialize((folder / "weights").read_bytes(), "weights"), deserialize(weights, "weights")
    for name, value in wanted.items():
        far = float((found[name] - value).abs().max())
        require(bool(torch.isclose(found[name], value, rtol=1e-9, atol=1e-12).all()), f"{name} is off by {far}")
    return 2


FAULTS = [Fault("other-count", "training cut, resumed on another number of processes (1, 2, 3)", moved)]
