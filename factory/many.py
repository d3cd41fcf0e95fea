"""Very many samples of a sampling job: steps of its pipeline share the shards of factory/shards.py.

    sample -> evaluate                                       what is measured
    plan-shards -> draw-shards, `workers` of them -> collect-shards

Each step draws its own shards alone: the service starts a lost one again, and it draws what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from core.config import Frozen, Place, config_hash, validate
from core.errors import UserError
from core.names import inside
from core.records import ModelFacts, read
from factory import shards
from factory.lineage import restore_ints

DRAW = "draw-shards"
"""The step that is begun for each worker."""


class ManyConfig(Frozen):
    """Samples that are drawn in shards by several steps, besides those that are measured."""

    count: int = Field(ge=1, le=10**9)
    size: int = Field(1000, ge=1, le=10**6, description="samples in a shard: the most that a kill loses")
    workers: int = Field(8, ge=1, le=1000, description="steps that share the shards, each on resources.sample")
    parallel: int = Field(8, ge=1, le=1000, description="of them at once; on this machine two at most")
    out: Place | None = Field(
        None,
        min_length=1,
        description="folder or prefix of the shards; null: beside checkpoints, by their content",
    )

    @model_validator(mode="after")
    def _has_work(self) -> ManyConfig:
        shards = -(-self.count // self.size)
        if self.workers > shards:
            raise ValueError(f"workers is {self.workers}, but {self.count} samples are {shards} shards of {self.size}")
        return self


def workers(many: Mapping[str, Any]) -> list[str]:
    """What each step is told: "0/8", "1/8", ..."""
    count = _config(many).workers
    return [f"{number}/{count}" for number in range(count)]


def draw(
    worker: str, modality: str, sample: Mapping[str, Any], many: Mapping[str, Any], model: Path, work: str
) -> dict[str, Any]:
    """Draws a worker's own shards that are not there, or damaged; what it did, and where.

    Raises:
        UserError: the settings ask for what the model cannot do, or the place holds other samples.
    """
    config, settings = _config(many), restore_ints(sample)
    number, _, of = worker.partition("/")
    out = _place(config, settings, model, work)
    did = shards.sample_shards(
        modality,
        settings,
        model,
        out,
        count=config.count,
        size=config.size,
        worker=int(number),
        workers=int(of),
        helps=False,
    )
    return {**did, "worker": worker, "out": out}


def _config(many: Mapping[str, Any]) -> ManyConfig:
    return validate(ManyConfig, restore_ints(many), "many")


def _place(config: ManyConfig, sample: Mapping[str, Any], model: Path, work: str) -> str:
    """The folder or prefix of the shards: equal for all workers and attempts, and of no other samples."""
    if config.out is not None:
        return config.out
    root = work or os.environ.get("TEXTDIFFUSION_WORK")
    if not root:
        raise UserError("many.out: not set, and neither is TEXTDIFFUSION_WORK; name a folder or prefix for the shards")
    weights = read(ModelFacts, str(inside(model, "model.json"))).weights_sha256
    drawn = {name: value for name, value in sample.items() if name not in ("count", "batch_size")}
    key = config_hash({"count": config.count, "size": config.size, "sample": drawn, "weights": weights})
    return inside(root, f"many-{key}")
