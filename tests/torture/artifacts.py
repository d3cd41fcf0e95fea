"""Artifacts of finished steps damaged on disk: what is described and cached is refused, never believed."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.torture.damage import DAMAGES
from tests.torture.trial import Fault, require

CASES = 40  # damaged copies in one trial


def _damaged(folder: Path, draw: random.Random, read: Callable[[], Any]) -> int:
    """Damages one file below `folder` again and again: `read` must give what it gave before, or None."""
    before = read()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for _ in range(CASES):
        victim, kind = draw.choice(files), draw.choice(sorted(DAMAGES))
        whole = victim.read_bytes()
        victim.write_bytes(DAMAGES[kind](whole, draw))
        if draw.random() < 0.1:
            victim.unlink()
        found = read()
        require(found is None or found == before, f"{kind} of {victim.name}: read as {found}")
        victim.write_bytes(whole)
    require(read() == before, "what is whole again was refused")
    return CASES


def models(draw: random.Random, folder: Path) -> int:
    """The folder of a trained model, as `generate` reads it."""
    import torch

    from core.errors import UserError
    from core.images.config import ImageModel
    from core.images.model import ImageShape, build_network, load_model, save_model

    network = {"channels": [8], "blocks": [1], "head_channels": 8, "embedding": 16}
    config = ImageModel.model_validate({"network": network})
    shape = ImageShape(channels=1, height=8, width=8, class_names=("a", "b"))
    torch.manual_seed(draw.randrange(1 << 30))
    save_model(folder / "model", build_network(config, shape), config, shape, {"seed": 3, "examples_seen": 512})

    def read() -> Any:
        try:
            found = load_model(folder / "model")
        except UserError:
            return None
        sums = {name: float(value.double().sum()) for name, value in found.network.state_dict().items()}
        return found.config, found.shape, found.description, sums

    logging.getLogger("core.storage.integrity").setLevel(logging.ERROR)
    return _damaged(folder / "model", draw, read)


def cached(draw: random.Random, folder: Path) -> int:
    """An evaluation and its entry in the local cache, as the next run would be served it."""
    from kfp import dsl

    from components.step import describe
    from core import storage
    from local.cache import VerifiedCache

    said: list[str] = []
    evaluation = dsl.Artifact(name="evaluation", uri=str(folder / "all" / "evaluation"), metadata={})
    entry = {"value": draw.uniform(0, 100), "floor": 0.5, "n": 40, "better": "lower"}
    storage.write_json(Path(evaluation.path) / "metrics.json", {"frechet_distance": entry})
    storage.write_json(Path(evaluation.path) / "evaluation.json", {"evaluation_key": "k"})
    describe(evaluation, {"frechet_distance": entry["value"]}, {})
    cache = VerifiedCache(folder / "all" / "cache", said.append)
    cache.put("key", {"evaluation": evaluation, "Output": "promote"})

    def read() -> Any:
        said.clear()
        found = cache.get("key")
        if found is None:
            lines = "".join(said).splitlines()
            require(len(lines) <= 1, f"more than a line was said: {said}")
            return None
        path = Path(found["evaluation"].path)
        files = [storage.read_json(path / name) for name in ("metrics.json", "evaluation.json")]
        return files, found["Output"], found["evaluation"].metadata

    return _damaged(folder / "all", draw, read)


FAULTS = [
    Fault("damage-model", "model folders: bits flipped, truncated, deleted", models, 0.3),
    Fault("damage-cache", "what the local cache serves: bits flipped, truncated, deleted", cached, 0.3),
]
