"""A complete pipeline whose data, checkpoints and registry are in a bucket, behind a proxy that breaks requests.

It ends with the very artifacts of an undisturbed run, or stops clean (exit code 1 or 2, one line, no traceback) and a
run after it completes; at no moment is a wrong artifact anywhere. Pauses between tries are left out, the tries are not.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.fakes.faulty import FaultyProxy
from tests.torture.pipeline import CHALLENGER, CHAMPION, ROOT, finish, resuming, start, watched, write_job
from tests.torture.storage import BUCKET, served, server
from tests.torture.trial import Fault, Survived, require

DATA = f"gs://{BUCKET}/data/digits.npz"
BROKEN_RUNS, MOST_RUNS = 4, 6  # runs through the proxy until one ends well, then runs without it
IMPATIENT = Path(__file__).parent / "impatient"
_OF_THE_RUN = (  # ends of keys
    "seconds",
    "per_second",
    "rate",
    "created",
    "uri",
    "run",
    "parents",
    "device",
    "precision",
)
_VIEWS = ("log.txt", ".html", "card.md")  # what they show is compared where it comes from


def _variables(root: str, url: str) -> dict[str, str]:
    """The environment of a command whose work folder and registry are below `root` on the server at `url`."""
    return {
        "PYTHONPATH": f"{IMPATIENT}{os.pathsep}{ROOT}",
        "STORAGE_EMULATOR_HOST": url,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "TEXTDIFFUSION_WORK": f"{root}/work",
        "TEXTDIFFUSION_REGISTRY": f"{root}/registry",
    }


def _write_project(folder: Path, examples: int) -> None:
    folder.mkdir()
    write_job(folder, examples)
    job = folder / "few.yaml"
    job.write_text(job.read_text().replace("{source: digits, limit: 200}", f"{{source: npz, data_dir: '{DATA}'}}"))


def _put_digits() -> None:
    import numpy as np
    from sklearn.datasets import load_digits

    from core import storage

    digits = load_digits()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "digits.npz"
        np.savez(path, images=np.clip(digits.images[:200] * 16, 0, 255).astype(np.uint8), labels=digits.target[:200])
        storage.write_bytes(DATA, path.read_bytes())


@cache
def undisturbed(owner: int) -> tuple[str, dict[str, str], set[str]]:
    """Below which prefix a champion is; the artifacts of a challenger's run that nothing disturbed, and its metrics."""
    from core import storage

    gcs = server(owner)
    with served(gcs.url), tempfile.TemporaryDirectory(prefix="torture-bucket-") as name:
        _put_digits()
        for what, examples in (("champion", CHAMPION), ("challenger", CHALLENGER)):
            root, folder = f"gs://{BUCKET}/{what}", Path(name) / what
            if what == "challenger":
                storage.copy_tree(f"gs://{BUCKET}/champion/registry", f"{root}/registry")
            _write_project(folder, examples)
            code, errors = finish(start(folder, variables=_variables(root, gcs.url)))
            require(code == 0, f"the {what}'s undisturbed run ended with {code}: {errors[-300:]}")
        return (
            f"gs://{BUCKET}/champion",
            artifacts(folder, root),
            set(json.loads((folder / "runs/latest/metrics.json").read_text())),
        )


def artifacts(folder: Path, root: str) -> dict[str, str]:
    """Hashes of all that a run left in its folder, in the registry and in its last checkpoint, without its times."""
    from core import storage
    from core.storage.checkpoint import CheckpointStore, serialize
    from factory.registry import Registry

    steps = folder / "runs" / "latest" / "steps"
    found = {
        f"steps/{name}": _content(name, (steps / name).read_bytes())
        for name in storage.list_files(steps)
        if not name.endswith(_VIEWS) and "tensorboard" not in name
    }
    champion = Registry(f"{root}/registry").champion("few")
    require(champion is not None, "there is no champion")
    assert champion is not None
    for name in champion.files:
        if "tensorboard" not in name:
            found[f"registry/{name}"] = _content(name, storage.read_bytes(storage.join(champion.uri, name)))
    found["registry/version"] = json.dumps([champion.version, champion.metrics, champion.weights_sha256])
    (work,) = {name.split("/")[0] for name in storage.list_files(f"{root}/work")}
    checkpoint = CheckpointStore(f"{root}/work/{work}").load()
    require(checkpoint is not None, "the last checkpoint cannot be read")
    assert checkpoint is not None
    for group, tensors in checkpoint.tensors.items():
        found[f"checkpoint/{group}"] = _content(group, serialize(tensors))
    return found


def _content(name: str, data: bytes) -> str:
    from core import jsontext

    if name.endswith((".json", ".jsonl")):
        rows = jsontext.parse_lines(data, name) if name.endswith(".jsonl") else [jsontext.parse(data, name)]
        data = json.dumps([_timeless(row) for row in rows], sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if not key.endswith(_OF_THE_RUN)}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def broken(share: float, draw: random.Random, folder: Path) -> Survived:
    """A complete pipeline through the proxy, again until it has ended well; compared with the undisturbed one."""
    from core import storage

    champion, expected, metrics = undisturbed(os.getpid())
    gcs, project, stopped = server(os.getpid()), folder / "project", 0
    root = f"gs://{BUCKET}/{draw.randrange(1 << 60):x}"
    _write_project(project, CHALLENGER)
    with served(gcs.url):
        storage.copy_tree(f"{champion}/registry", f"{root}/registry")
        with (
            FaultyProxy(gcs.url, share=share, seed=draw.randrange(1 << 30), slow=0.02) as proxy,
            watched(f"{root}/registry", metrics, pause=0.1),
        ):
            while not _ended_right(project, root, proxy.url if stopped < BROKEN_RUNS else gcs.url):
                stopped += 1
                require(stopped < MOST_RUNS, f"not finished after {MOST_RUNS} runs, the last ones without faults")
        require(proxy.broken > 0, "no request was broken")
        found = artifacts(project, root)
        storage.remove(root)
    differs = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    require(not differs, f"{len(differs)} of {len(expected)} artifacts differ, first {differs[:3]}")
    return Survived(stopped + 1, stopped)


def _ended_right(project: Path, root: str, url: str) -> bool:
    """Runs the job, or goes on with its unfinished run; False if it stopped clean."""
    code, errors = finish(start(project, *resuming(project), variables=_variables(root, url)))
    logs = [path.read_text(errors="replace") for path in project.glob("runs/*/few-*/steps/*/log.txt")]
    wrong = [text for text in (errors, *logs) if "Traceback" in text]
    require(not wrong, f"a traceback: {wrong[:1][0][-500:] if wrong else ''}")
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    require(code == 0 or (code in (1, 2) and len(said) == 1), f"it ended with {code}: {errors[-500:]}")
    return code == 0


def _fault(percent: int) -> Fault:
    return Fault(
        f"bucket-{percent}",
        f"a complete pipeline on gs:// with {percent} % of all requests broken",
        lambda draw, folder: broken(percent / 100, draw, folder),
        1.5,
    )


FAULTS = [_fault(5), _fault(20), _fault(50)]
