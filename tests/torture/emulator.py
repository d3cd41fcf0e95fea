"""Steps of a run on the Vertex emulator, and the run itself, ended at random moments: restarts and retries complete it.

The steps are the real ones, compiled and submitted by `textdiffusion deploy`; a lost machine is SIGKILL or SIGTERM to
a step's process, training runs on spot machines, which the service replaces. A run that failed or was cancelled goes on
by `textdiffusion retry`. The registry, with a champion in it, is looked at all the time.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import re
import signal
import time
from functools import cache
from pathlib import Path
from typing import Any

from core.storage import scratches
from tests.fakes.gcs import GcsServer
from tests.fakes.vertex import VertexServer
from tests.fakes.vertex.execution import FINISHED
from tests.pipelines.vertex.conftest import make_cloud
from tests.pipelines.vertex.walk import PRELOAD, Walk
from tests.pipelines.walk import IMAGE_ENVIRONMENT
from tests.torture.pipeline import CHALLENGER, CHAMPION, HANG_SECONDS, children, watched, write_job
from tests.torture.storage import served
from tests.torture.trial import Fault, LostError, require

BUCKET = "gs://demo-bucket"
MOST_RUNS = 6
CANCELS, TERMS = 0.15, 0.4  # shares of what is done to a run


@cache
def project(owner: int) -> tuple[Walk, dict[str, Any], float]:
    """A project in the cloud whose registry has a champion; what a challenger's undisturbed run leaves, its seconds."""
    gcs = GcsServer()
    server = VertexServer(gcs, environment=IMAGE_ENVIRONMENT, preload=PRELOAD)
    atexit.register(gcs.close)
    atexit.register(server.close)
    walk = Walk(make_cloud(gcs, server), scratches.keep("torture-emulator")[0])
    with served(gcs.url):
        _fresh(walk, f"{BUCKET}/champion")
        require(_end(walk, _submit(walk, CHAMPION))[0] == "succeeded", "the champion's run failed")
        _fresh(walk, f"{BUCKET}/undisturbed")
        began = time.monotonic()
        require(_end(walk, _submit(walk, CHALLENGER))[0] == "succeeded", "the undisturbed run failed")
        return walk, _record(walk), time.monotonic() - began


def _fresh(walk: Walk, root: str) -> None:
    """Nothing is cached and no training begun; the registry below `root` holds the champion alone."""
    from core import storage

    for path in walk.cloud.server.cache.iterdir():
        path.unlink()
    storage.remove(f"{BUCKET}/work")
    walk.environment["TEXTDIFFUSION_REGISTRY"] = f"{root}/registry"
    if root != f"{BUCKET}/champion":
        storage.copy_tree(f"{BUCKET}/champion/registry", f"{root}/registry")


def _submit(walk: Walk, examples: int) -> str:
    write_job(walk.folder, examples)
    job = walk.folder / "few.yaml"
    job.write_text(job.read_text().replace("sample: cpu}", "sample: cpu, spot: true}"))
    return _run_of(walk.run("deploy", "few.yaml", quiet=True))


def _run_of(said: str) -> str:
    return str(re.search(r"^run: (\S+)", said, re.MULTILINE)[1])  # type: ignore[index]


def _end(
    walk: Walk, run: str, moments: list[float] | None = None, draw: random.Random | None = None
) -> tuple[str, int]:
    """Waits for a run's end and on the way, at each of the `moments` (seconds from now), ends one of its steps or
    cancels it; its final state and how often it was hit."""
    executions = walk.cloud.server.pipelines.executions
    execution = next(found for name, found in executions.items() if name.endswith(f"/{run}"))
    began, left, hits = time.monotonic(), sorted(moments or []), 0
    while execution.job.state not in FINISHED:
        require(time.monotonic() - began < HANG_SECONDS, f"run {run} did not end")
        if left and draw is not None and time.monotonic() - began >= left[0]:
            if draw.random() < CANCELS:
                execution.cancel()
                hits += 1
                left = []
            elif steps := [pid for runner in children(walk.cloud.server.host.pid) for pid in children(runner)]:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(steps[0], signal.SIGTERM if draw.random() < TERMS else signal.SIGKILL)
                    hits += 1
                    left.pop(0)
        time.sleep(0.005)
    execution.wait()
    return execution.job.state.name.removeprefix("PIPELINE_STATE_").lower(), hits


def _record(walk: Walk) -> dict[str, Any]:
    """What must be the same: the champion, its metrics and the reason of its promotion."""
    from core import storage
    from factory.registry import Registry

    root = walk.environment["TEXTDIFFUSION_REGISTRY"]
    registry = Registry(root)
    champion = registry.champion("few")
    assert champion is not None
    for version in registry.versions("few"):
        version.verify()
    reason = storage.read_json(f"{root}/few/champion.json")["reason"]
    return {"metrics": champion.metrics, "weights": champion.weights_sha256, "reason": reason}


def killed(draw: random.Random, folder: Path) -> int:
    """Up to five kills while a run and its retries are under way; what is champion at the end is compared."""
    walk, expected, seconds = project(os.getpid())
    with served(walk.cloud.gcs.url):
        _fresh(walk, f"{BUCKET}/{draw.randrange(1 << 60):x}")
        with watched(walk.environment["TEXTDIFFUSION_REGISTRY"], set(expected["metrics"]), pause=0.05):
            run, hits = _submit(walk, CHALLENGER), 0
            for attempt in range(MOST_RUNS):
                count = draw.randint(1, 3) if attempt < MOST_RUNS - 3 else 0
                state, more = _end(walk, run, [draw.uniform(0, seconds) for _ in range(count)], draw)
                hits += more
                if state == "succeeded":
                    break
                require(more > 0, f"a run that nothing disturbed is {state}")
                run = _run_of(walk.run("retry", run, quiet=True))
            else:
                raise LostError(f"not finished after {MOST_RUNS} runs")
        found = _record(walk)
    for name, value in expected.items():
        require(found[name] == value, f"{name} differs after {hits} kills: {found[name]} instead of {value}")
    return max(1, hits)


FAULTS = [
    Fault(
        "kill-vertex",
        "a step on the Vertex emulator: SIGKILL or SIGTERM, or its run cancelled; restarted, retried",
        killed,
        2,
    )
]
