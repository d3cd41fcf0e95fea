"""Steps of the whole pipeline, and the run itself, killed at random and resumed: the registry is watched all the time.

A champion stands in the registry before; it must be there at every moment, every version must be whole, and what the
gate decides must be what it decides undisturbed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from core.storage import scratches
from tests.torture.trial import Fault, LostError, require

ROOT = Path(__file__).parents[2]
JOB = """
job: few
description: A few steps on a few digits
modality: images
data: {source: digits, limit: 200}
model: {network: {channels: [8, 8], blocks: [0, 1], head_channels: 8, embedding: 16}}
train: {examples: EXAMPLES, batch_size: 32, warmup_examples: 32, checkpoint_minutes: 0.001, precision: fp32}
sample: {count: 40, steps: 2, batch_size: 40}
evaluate: {count: 40, judge_epochs: 1}
gate: {metric: frechet_distance, better: lower, first_floors: 0}
resources: {train: cpu, sample: cpu}
"""
CHAMPION, CHALLENGER = 32, 960  # examples that they train on
MOST_RUNS = 8
HANG_SECONDS = 300


def start(folder: Path, *options: str, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """`textdiffusion run few.yaml` in the project `folder`, in a session of its own, with these environment variables
    beside those of this process."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TEXTDIFFUSION_")}
    return subprocess.Popen(
        [sys.executable, "-m", "textdiffusion", "run", "few.yaml", *options],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(variables or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code of a run, and what it said on standard error."""
    try:
        _, errors = process.communicate(timeout=HANG_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise LostError("a run did not end") from None
    return process.returncode, errors


def write_job(folder: Path, examples: int) -> None:
    """Makes a project of `folder`: its job trains on so many examples."""
    (folder / "few.yaml").write_text(JOB.replace("EXAMPLES", str(examples)))
    (folder / "textdiffusion.yaml").write_text("image: textdiffusion:fixed\n")


@cache
def prepared(owner: int) -> tuple[Path, dict[str, Any], float]:
    """A project with a champion; the record of a challenger's undisturbed run in a copy of it, and its seconds."""
    base = scratches.keep("torture-pipeline")[0]
    project, copy = base / "project", base / "undisturbed"
    project.mkdir()
    write_job(project, CHAMPION)
    code, errors = finish(start(project))
    require(code == 0, f"the champion's run ended with {code}: {errors[-300:]}")
    write_job(project, CHALLENGER)
    shutil.copytree(project, copy, symlinks=True)
    began = time.monotonic()
    code, errors = finish(start(copy))
    require(code == 0, f"the undisturbed run ended with {code}: {errors[-300:]}")
    return project, _record(copy), time.monotonic() - began


def _record(folder: Path) -> dict[str, Any]:
    """What must be the same: every metric, the decision, and the weights of the champion."""
    from factory.registry import Registry

    run = folder / "runs" / "latest"
    champion = Registry(folder / "registry").champion("few")
    assert champion is not None
    verdict = json.loads((run / "run.json").read_text())["gate"]
    return {
        "metrics": json.loads((run / "metrics.json").read_text()),
        "decision": [verdict["decision"], verdict["reason"]],
        "champion": [champion.version, champion.weights_sha256],
    }


@contextmanager
def watched(root: str, metrics: set[str], pause: float = 0.01) -> Iterator[None]:
    """Looks at the registry below `root` all the time; what is wrong there at any moment is lost."""
    from factory.registry import Registry

    wrong: list[str] = []
    end = threading.Event()

    def watch() -> None:
        registry = Registry(root)
        while not end.is_set() and not wrong:
            try:
                champion = registry.champion("few")
                if champion is None:
                    wrong.append("there was no champion for a moment")
                elif set(champion.metrics) != metrics:
                    wrong.append("a version with a partial evaluation was champion")
                else:
                    champion.verify()
            except Exception as error:
                wrong.append(f"the champion could not be read: {error}")
            end.wait(pause)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
    require(not wrong, "; ".join(wrong))


def resuming(folder: Path) -> list[str]:
    """The argument that goes on with the unfinished run in a folder, if there is one."""
    runs = [json.loads(path.read_text()) for path in folder.glob("runs/*/few-*/run.json")]
    return ["--resume"] if any(run["status"] != "succeeded" for run in runs) else []


def killed(whole_run: bool, draw: random.Random, folder: Path) -> int:
    """Kills a step, or the run with all its processes' parent, at random until it has ended; then compares."""
    project, expected, seconds = prepared(os.getpid())
    shutil.copytree(project, folder / "project", symlinks=True)
    folder, kills = folder / "project", 0
    with watched(str(folder / "registry"), set(expected["metrics"])):
        for attempt in range(MOST_RUNS):
            process = start(folder, *resuming(folder))
            if attempt < MOST_RUNS - 3 and draw.random() < 0.8**attempt:
                kills += _kill(process, whole_run, draw, seconds)
            code, errors = finish(process)
            if code == 0:
                break
            require("Traceback" not in errors, f"a traceback: {errors[-500:]}")
        else:
            raise LostError(f"not finished after {MOST_RUNS} runs: {errors[-300:]}")
    found = _record(folder)
    version = expected["champion"][0]
    if found["decision"] == ["keep", f"the challenger is the champion: the same weights as version {version}"]:
        # Killed between its promotion and the note of it: the gate looked again, and met its own model.
        found["decision"] = expected["decision"]
    for name, value in expected.items():
        require(found[name] == value, f"{name} differ after {kills} kills: {found[name]} instead of {value}")
    return max(1, kills)


def _kill(process: subprocess.Popen[str], whole_run: bool, draw: random.Random, seconds: float) -> int:
    deadline = time.monotonic() + draw.uniform(0.05, 1.0) * seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    if whole_run:
        process.send_signal(draw.choice([signal.SIGKILL, signal.SIGTERM]))
        return 1
    while process.poll() is None:
        steps = [pid for server in children(process.pid) for pid in children(server)]
        if steps:
            os.kill(steps[0], draw.choice([signal.SIGKILL, signal.SIGTERM]))
            return 1
        time.sleep(0.005)
    return 0


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


FAULTS = [
    Fault(
        "kill-step", "a step of the local pipeline: SIGKILL or SIGTERM, resumed", lambda d, f: killed(False, d, f), 2
    ),
    Fault("kill-run", "the whole local run: SIGKILL or SIGTERM, resumed", lambda d, f: killed(True, d, f), 2),
]
