"""Training killed at a random moment and resumed: weights, average, optimizer, log and previews bit for bit.

Tiny but real models of digits and of text, through `core.modality.run` as a pipeline calls it, with a checkpoint after
every step, so that half of all moments fall into the writing of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import tempfile
import time
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from core.requests import ModalityName
from core.storage import scratches
from factory.steps import STEPS
from tests.torture.trial import Fault, environment, fork, require, wait

EVERY_STEP = 1e-9  # minutes between checkpoints
TERM_SECONDS = 30.0  # that a spot machine gives between its notice and its end
HANG_SECONDS = 120.0
KILLS = 10  # of one training: starting its process again is the only cost of each

JOBS: dict[str, dict[str, Any]] = {
    "images": {
        "data": {"source": "digits", "limit": 120},
        "model": {"network": {"channels": [8, 8], "blocks": [0, 1], "head_channels": 8, "embedding": 16}},
        "train": {"examples": 320, "batch_size": 16, "warmup_examples": 32, "log_every": 3},
    },
    "text": {
        "data": {"source": "pydoc", "limit": 20_000, "tokenizer": {"kind": "characters"}},
        "model": {
            "context": 16,
            "transformer": {"width": 16, "depth": 1, "heads": 1, "dropout": 0.1},
            "process": {"embedding": 8, "blocks": [4, 8]},
        },
        "train": {"examples": 320, "batch_size": 16, "warmup_examples": 32, "log_every": 3},
    },
}


def dataset(modality: ModalityName) -> Path:
    """The prepared data set of a modality, made once a process."""
    return _prepared(modality, os.getpid())


@cache
def _prepared(modality: ModalityName, owner: int) -> Path:
    from tests.core.asked import Steps

    folder = scratches.keep(f"torture-{modality}")[0] / "dataset"
    Steps(modality).prepare_data(JOBS[modality]["data"], folder)
    return folder


def train(modality: ModalityName, folder: Path, precision: str = "fp32") -> int:
    """Trains into `folder`/model with checkpoints in `folder`/work, as a step does; the exit code of the step."""
    from components.step import step
    from core.modality import run
    from tests.core.asked import Steps

    job = JOBS[modality]
    settings = {**job["train"], "checkpoint_minutes": EVERY_STEP, "precision": precision}
    with step():
        steps = Steps(modality, run)
        steps.train(job["model"], settings, dataset(modality), folder / "model", work=str(folder / "work"))
    return 0


def fingerprint(folder: Path) -> dict[str, str]:
    """Hashes of all that a finished training leaves that must be the same whatever happened on the way."""
    from core import jsontext
    from core.storage.checkpoint import CheckpointStore
    from core.training.log import TIMING

    def log(data: bytes) -> bytes:
        rows = jsontext.parse_lines(data, "log")
        return json.dumps([{key: row[key] for key in row if key not in TIMING} for row in rows]).encode()

    model = folder / "model"
    found = {
        "model/weights": (model / "weights.safetensors").read_bytes(),
        "model/log": log((model / "train_log.jsonl").read_bytes()),
    }
    found |= {f"model/previews/{path.name}": path.read_bytes() for path in (model / "previews").iterdir()}
    (work,) = (folder / "work").iterdir()
    checkpoint = CheckpointStore(str(work)).load()
    require(checkpoint is not None, "the last checkpoint cannot be read")
    assert checkpoint is not None
    for group, tensors in checkpoint.tensors.items():
        for name, value in tensors.items():
            found[f"checkpoint/{group}/{name}"] = value.contiguous().numpy().tobytes()
    found["checkpoint/log"] = log(checkpoint.files["log.jsonl"])
    return {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}


@cache
def undisturbed(modality: str, processes: int, precision: str, owner: int) -> tuple[dict[str, str], float, float]:
    """The fingerprint of a training that nothing disturbed; seconds until it made its first checkpoint, and after."""
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        folder = Path(name)
        pids = start(modality, folder, processes, precision)
        began = time.monotonic()  # what is imported and prepared once, before the first fork, does not count
        while not list(folder.glob("work/*/manifest-*")) and time.monotonic() - began < HANG_SECONDS:
            time.sleep(0.005)
        first = time.monotonic() - began
        codes = finish(pids)
        require(set(codes) == {0}, f"undisturbed training ended with {codes}: {tail(folder)}")
        return fingerprint(folder), first, time.monotonic() - began - first


def start(modality: str, folder: Path, processes: int = 1, precision: str = "fp32") -> list[int]:
    """Starts the processes of a training; with more than one they are a group of gloo, as torchrun makes it."""
    dataset(modality)
    for module in ("components.step", *STEPS["train"].imports(modality)):  # once, before the fork
        import_module(module)
    if processes == 1:
        return [fork(lambda: train(modality, folder, precision), folder / "log.txt")]
    pids, port = [], port_of()
    for rank in range(processes):
        group = {
            "RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "TORCHELASTIC_RUN_ID": "torture",
        }  # as torchrun's own workers: they start no others
        with environment(**group):
            pids.append(fork(lambda: train(modality, folder, precision), folder / f"log{rank}.txt"))
    return pids


def port_of() -> str:
    """A free port of this machine, for a process group."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def finish(pids: list[int], first: int = 0) -> list[int]:
    """Waits for all processes; their exit codes. If the `first` failed, the others are ended, as torchrun does."""
    if first != 0:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
    return [wait(pid, HANG_SECONDS) for pid in pids]


def tail(folder: Path) -> str:
    """The last line that the processes of a training wrote."""
    lines = [line for path in sorted(folder.glob("log*.txt")) for line in path.read_text(errors="replace").splitlines()]
    return lines[-1][:300] if lines else "no word"


def killed(
    modality: str,
    number: signal.Signals,
    processes: int,
    draw: random.Random,
    folder: Path,
    precision: str = "fp32",
) -> int:
    """One training cut at up to `KILLS` random moments, then let run to its end and compared with the undisturbed one.

    One moment of six is in the start; the others are so near to it that the training outlasts about all of them.
    """
    expected, first, rest = undisturbed(modality, processes, precision, os.getpid())
    kills = 0
    while kills < KILLS:
        pids = start(modality, folder, processes, precision)
        time.sleep(draw.uniform(0, first) if draw.random() < 1 / 6 else first + draw.uniform(0, 3 * rest / KILLS))
        victim = draw.choice(pids)
        asked = time.monotonic()
        os.kill(victim, number)
        kills += 1
        if number == signal.SIGTERM:
            codes = [wait(victim, HANG_SECONDS)]
            took = time.monotonic() - asked
            require(took < TERM_SECONDS, f"SIGTERM was obeyed only after {took:.0f} s")
            codes += finish([pid for pid in pids if pid != victim], first=codes[0])
            fine = {0, 143, -signal.SIGTERM} | ({1} if processes > 1 else set())  # 1: the other died before the loop
            require(set(codes) <= fine, f"SIGTERM ended it with {codes}: {tail(folder)}")
        else:
            for pid in pids:  # what torchrun does when one process is gone
                os.kill(pid, signal.SIGKILL)
            codes = finish(pids)
        if set(codes) == {0}:  # it was at its end
            break
    codes = finish(start(modality, folder, processes, precision))
    require(set(codes) == {0}, f"resumed training ended with {codes}: {tail(folder)}")
    found = fingerprint(folder)
    differs = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    require(not differs, f"after {kills} kills {len(differs)} of {len(expected)} parts differ, first {differs[:1]}")
    return kills


def killed_in(precision: str, draw: random.Random, folder: Path) -> int:
    """A training of images or of text in another number format, killed outright or by a notice."""
    number = draw.choice([signal.SIGKILL, signal.SIGTERM])
    return killed(draw.choice(sorted(JOBS)), number, 1, draw, folder, precision)


def _fault(name: str, title: str, modality: str, number: signal.Signals, processes: int, weight: float) -> Fault:
    return Fault(name, title, lambda draw, folder: killed(modality, number, processes, draw, folder), weight)


FAULTS = [
    _fault("kill-images", "training of images: SIGKILL, resumed", "images", signal.SIGKILL, 1, 1),
    _fault("term-images", "training of images: SIGTERM, resumed", "images", signal.SIGTERM, 1, 1),
    _fault("kill-text", "training of text: SIGKILL, resumed", "text", signal.SIGKILL, 1, 1),
    _fault("term-text", "training of text: SIGTERM, resumed", "text", signal.SIGTERM, 1, 1),
    _fault("kill-two", "training on two processes (gloo): SIGKILL, resumed", "images", signal.SIGKILL, 2, 1.5),
    _fault("term-two", "training on two processes (gloo): SIGTERM to one, resumed", "text", signal.SIGTERM, 2, 1.5),
    Fault("kill-bf16", "training in bf16: SIGKILL or SIGTERM, resumed", lambda d, f: killed_in("bf16", d, f)),
    Fault("kill-fp16", "training in fp16, scaled: the same", lambda d, f: killed_in("fp16", d, f)),
]
