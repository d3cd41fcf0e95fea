"""A bucket behind a proxy that breaks 5, 20 or 50 % of requests: right, or stopped clean; never a wrong artifact.

Checkpoints, the registry and copies through the real gcsfs. Pauses between tries are left out, the tries are not.
"""

from __future__ import annotations

import atexit
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.fakes.faulty import FaultyProxy, without_pauses
from tests.fakes.gcs import GcsServer
from tests.torture.trial import Fault, environment, require

BUCKET = "torture"


@cache
def server(owner: int) -> GcsServer:
    """One server a process."""
    gcs = GcsServer()
    atexit.register(gcs.close)
    gcs.create_bucket(BUCKET)
    return gcs


@contextmanager
def served(url: str) -> Iterator[None]:
    """Sends the clients of this process to the server at `url`."""
    from gcsfs import GCSFileSystem

    GCSFileSystem.clear_instance_cache()
    with environment(STORAGE_EMULATOR_HOST=url, GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT="false"):
        yield
    GCSFileSystem.clear_instance_cache()


def broken(share: float, draw: random.Random, folder: Path) -> int:
    """A training's checkpoints and two registered versions through the proxy, then looked at without it."""
    gcs = server(os.getpid())
    root = f"gs://{BUCKET}/{draw.randrange(1 << 60):x}"
    with FaultyProxy(gcs.url, share=share, seed=draw.randrange(1 << 30), slow=0.02) as proxy:
        with without_pauses(), served(proxy.url):
            done = _write(root, draw, folder)
        with served(gcs.url):
            _look(root, done, folder)
        with without_pauses(), served(proxy.url):
            _read(root, done, folder)
    return proxy.broken


def _write(root: str, draw: random.Random, folder: Path) -> dict[str, Any]:
    """What the writer was told of each of its writes: True, or False after a clean stop."""
    import torch

    from core.storage.checkpoint import CheckpointStore
    from core.storage.faults import StorageError
    from factory.registry import Registry

    store, registry = CheckpointStore(f"{root}/work"), Registry(f"{root}/registry")
    done: dict[str, Any] = {"checkpoints": [], "versions": []}
    for number in range(3):
        try:
            store.save({"model": {"w": torch.full((999,), float(number))}}, {"log.jsonl": b"{}"}, {"number": number})
            done["checkpoints"].append(number)
        except StorageError:
            pass
    for number in range(2):
        model = folder / f"model{number}"
        model.mkdir()
        (model / "weights.safetensors").write_bytes(random.Random(number).randbytes(draw.randint(0, 300_000)))
        (model / "model.json").write_text(f'{{"number": {number}}}')
        try:
            version = registry.register(
                "digits", {"model": model}, metrics={"m": {"value": 1.0}}, evaluation_key="k",
                weights_sha256=str(number), lineage={"number": number},
            )  # fmt: skip
            registry.promote("digits", version.version, "torture")
            done["versions"].append(number)
        except StorageError:
            pass
    return done


def _look(root: str, done: dict[str, Any], folder: Path) -> None:
    """The truth, seen without faults: all that was said to be done is there, and nothing is there in part."""
    from core.storage.checkpoint import CheckpointStore
    from factory.registry import Registry

    found = CheckpointStore(f"{root}/work").load()
    if done["checkpoints"]:
        require(found is not None, "a checkpoint that was written is not there")
        assert found is not None
        require(found.meta["number"] >= done["checkpoints"][-1], f"{found.meta} is older than {done['checkpoints']}")
    if found is not None:
        require(bool((found.tensors["model"]["w"] == found.meta["number"]).all()), "a checkpoint holds wrong tensors")
    registry = Registry(f"{root}/registry")
    for version in registry.versions("digits"):
        version.verify()
    champion = registry.champion("digits")
    if done["versions"]:
        require(champion is not None, "a champion that was promoted is not there")
        assert champion is not None
        require(champion.lineage["number"] >= done["versions"][-1], "an older version is champion")


def _read(root: str, done: dict[str, Any], folder: Path) -> None:
    """The same through the proxy: what arrives is right, or nothing arrives."""
    from core import storage
    from core.storage.checkpoint import CheckpointStore
    from core.storage.faults import StorageError
    from factory.registry import Registry

    try:
        found = CheckpointStore(f"{root}/work").load()
        require(found is not None or not done["checkpoints"], "a checkpoint that is there was taken for none")
        if found is not None:
            require(bool((found.tensors["model"]["w"] == found.meta["number"]).all()), "wrong tensors arrived")
            require(not done["checkpoints"] or found.meta["number"] >= done["checkpoints"][-1], "an older one arrived")
        champion = Registry(f"{root}/registry").champion("digits")
        if champion is not None:
            storage.copy_tree(champion.folder(), folder / "download")
            for name in ("weights.safetensors", "model.json"):
                made = (folder / f"model{champion.lineage['number']}" / name).read_bytes()
                require((folder / "download" / name).read_bytes() == made, f"another {name} arrived")
    except StorageError:
        pass


def _fault(percent: int) -> Fault:
    return Fault(
        f"storage-{percent}",
        f"requests to the bucket broken, {percent} % of all (503, 429, reset, slow, truncated, answer lost)",
        lambda draw, folder: broken(percent / 100, draw, folder),
        0.5,
    )


FAULTS = [_fault(5), _fault(20), _fault(50)]
