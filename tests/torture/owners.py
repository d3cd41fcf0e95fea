"""Processes that want the same thing at once, killed at random: one has it, nothing is forgotten or stays locked."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from tests.torture.trial import Fault, fork, require, wait

RIVALS = 4
VERSIONS = 4


def owned(draw: random.Random, folder: Path) -> int:
    """Rivals for one folder of checkpoints, each of them killed while it has it or waits: never two at once."""
    from core.storage import leases

    root, mark = folder / "work", folder / "inside"

    def rival(seconds: float) -> int:
        with leases.only_one(str(root), "the folder", patience=60):
            descriptor = os.open(mark, os.O_CREAT | os.O_EXCL)  # fails if another one is inside
            time.sleep(seconds)
            os.close(descriptor)
            mark.unlink()
        return 0

    pids = [fork(lambda: rival(0.02), folder / "log") for _ in range(RIVALS)]
    require([wait(pid, 60) for pid in pids] == [0] * RIVALS, f"two were inside: {(folder / 'log').read_text()[-300:]}")
    for _ in range(RIVALS):
        pid = fork(lambda: rival(5), folder / "log")
        time.sleep(draw.uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
        wait(pid, 60)
        mark.unlink(missing_ok=True)
        with leases.only_one(str(root), "the folder", patience=0):  # free at once
            pass
    return 2 * RIVALS


def moved(draw: random.Random, folder: Path) -> int:
    """Promotions and rollbacks in parallel, some killed: there is a champion, and every move is in the history."""
    from core.errors import UserError
    from factory.registry import Registry

    registry = Registry(folder / "registry")
    for number in range(VERSIONS):
        model = folder / f"model{number}"
        model.mkdir()
        (model / "weights.safetensors").write_bytes(bytes([number]) * 99)
        registry.register(
            "digits", {"model": model}, metrics={}, evaluation_key="k", weights_sha256=str(number), lineage={}
        )
    registry.promote("digits", 1, "the first")

    def move(name: str, seed: int) -> int:
        own = random.Random(seed)
        for turn in range(20):
            reason = f"{name} {turn}"
            try:
                if own.random() < 0.6:
                    registry.promote("digits", own.randint(1, VERSIONS), reason)
                else:
                    registry.rollback("digits", reason)
            except UserError as error:
                if "no earlier champion" not in str(error):
                    raise
                continue
            with (folder / f"done-{name}").open("a") as file:
                file.write(f"{reason}\n")
        return 0

    pids = [fork(lambda n=n: move(str(n), draw.randrange(1 << 30)), folder / "log") for n in range(RIVALS)]
    doomed = pids[: RIVALS // 2]
    for pid in doomed:
        time.sleep(draw.uniform(0, 0.2))
        os.kill(pid, signal.SIGKILL)
    codes = [wait(pid, 60) for pid in pids]
    require(codes[len(doomed) :] == [0] * (RIVALS - len(doomed)), (folder / "log").read_text()[-300:])
    lines = registry.history("digits")
    done = {line for path in folder.glob("done-*") for line in path.read_text().splitlines()}
    forgotten = done - {line["reason"] for line in lines}
    require(not forgotten, f"the history forgot {sorted(forgotten)}")
    champion = registry.champion("digits")
    require(champion is not None, "there is no champion")
    assert champion is not None
    champion.verify()
    last = max(lines, key=lambda line: line["created"])["created"]
    require(
        champion.version in {line["version"] for line in lines if line["created"] == last}, "another one is champion"
    )
    return len(lines)


FAULTS = [
    Fault("owners", "rivals for one folder of checkpoints: SIGKILL to each", owned, 0.3),
    Fault("promote-rollback", "promotions and rollbacks in parallel: SIGKILL to half of them", moved, 0.3),
]
