"""`shards`: one worker of a sampling of very many images or texts (factory/shards.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from core import storage
from core.config import Frozen, Place, validate
from core.records import ModelFacts, read
from core.storage import scratches
from factory.shards import sample_shards


class ShardRequest(Frozen):
    """What every worker is told."""

    model: Place = Field(min_length=1, description="model folder, a path or URI")
    out: Place = Field(min_length=1, description="folder or gs:// prefix that all workers share")
    count: int = Field(ge=1, le=10**9)
    size: int = Field(1000, ge=1, le=1_000_000, description="samples in a shard: the most that a kill loses")
    sample: dict[str, Any] = Field(default_factory=dict, description="the section `sample` of a job")
    worker: int = Field(0, ge=0)
    workers: int = Field(1, ge=1, le=100_000)


def shards(values: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Draws one worker's part; its number is JOB_COMPLETION_INDEX where Kubernetes runs an indexed job.

    Raises:
        UserError: the request is not valid, or the model or `out` are not what they should be.
    """
    index = environment.get("JOB_COMPLETION_INDEX")
    request = validate(ShardRequest, {**values, **({"worker": int(index)} if index else {})}, "request")
    with scratches.temporary_folder("shards") as scratch:
        model = Path(request.model)
        if storage.is_remote(request.model):
            model = scratch / "model"
            storage.copy_tree(request.model, model)
        modality = read(ModelFacts, str(model / "model.json")).modality
        return sample_shards(
            modality,
            request.sample,
            model,
            request.out,
            count=request.count,
            size=request.size,
            worker=request.worker,
            workers=request.workers,
        )
