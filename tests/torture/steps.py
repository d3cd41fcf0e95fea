"""Sampling and the training of the judge killed at a random moment and done again: absent or whole, and the same."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from functools import cache
from importlib import import_module
from pathlib import Path

from core.storage import scratches
from factory.steps import STEPS
from tests.torture.training import HANG_SECONDS, dataset, train
from tests.torture.trial import Fault, fork, require, wait

SAMPLE = {"count": 20, "steps": 8, "batch_size": 10, "sampler": "heun"}
JUDGE = {"count": 40, "judge_epochs": 2}


def work(kind: str, folder: Path, model: Path) -> None:
    """The step, into `folder`/out."""
    from core.modality import run
    from tests.core.asked import Steps

    steps = Steps("images", run)
    if kind == "sample":
        steps.sample(SAMPLE, model, folder / "out")
    else:
        steps.train_judge(JUDGE, dataset("images"), folder / "out")


def fingerprint(kind: str, folder: Path) -> str:
    """The hash of what the step made."""
    from core.images.judge import WEIGHTS

    name = WEIGHTS if kind == "judge" else "samples.npz"
    return hashlib.sha256((folder / "out" / name).read_bytes()).hexdigest()


@cache
def undisturbed(kind: str, owner: int) -> tuple[Path, str, float]:
    """A model to draw from, the step's undisturbed result, and its seconds."""
    folder = scratches.keep("torture-step")[0]
    if kind == "sample":
        dataset("images")
        require(wait(fork(lambda: train("images", folder)), HANG_SECONDS) == 0, "the model was not trained")
    began = time.monotonic()
    require(wait(fork(lambda: work(kind, folder, folder / "model")), HANG_SECONDS) == 0, "undisturbed, it failed")
    return folder / "model", fingerprint(kind, folder), time.monotonic() - began


def killed(kind: str, draw: random.Random, folder: Path) -> int:
    """Kills the step up to four times, then lets it end; what it makes is what it makes undisturbed."""
    for name in ("torch", "core.images.judge", *STEPS["train"].imports("images")):  # before the forks, once
        import_module(name)
    dataset("images")
    model, expected, seconds = undisturbed(kind, os.getpid())
    for _ in range(4):
        pid = fork(lambda: work(kind, folder, model))
        time.sleep(draw.uniform(0, seconds))
        os.kill(pid, draw.choice([signal.SIGKILL, signal.SIGTERM]))
        wait(pid, HANG_SECONDS)
        if (folder / "out").exists():
            require(fingerprint(kind, folder) == expected, "a killed step left a wrong result")
    require(wait(fork(lambda: work(kind, folder, model), folder / "log"), HANG_SECONDS) == 0, "it did not end")
    require(fingerprint(kind, folder) == expected, "the result differs")
    return 4


FAULTS = [
    Fault("kill-sample", "sampling: SIGKILL or SIGTERM, done again", lambda d, f: killed("sample", d, f), 0.5),
    Fault(
        "kill-judge", "training of the judge: SIGKILL or SIGTERM, done again", lambda d, f: killed("judge", d, f), 0.5
    ),
]
