"""`train-job`: a job's training alone, without a pipeline, on every node of a cluster that Kubeflow's trainer starts.

Each node prepares the data by itself (same settings, same bytes), all train together (core/processes/launch.py), and
the node that holds the first process publishes: OUT/model, for text OUT/autoregressive before it, OUT/complete.json
last.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError
from core.modality import run
from core.processes import launch
from core.requests import PrepareDataRequest, TrainRequest
from core.storage import scratches
from factory.job import AnyJob, ImageTrainingJob, TextTrainingJob

WAIT = 900.0  # seconds for another node to publish what this one needs


def train_job(job: AnyJob, out: str) -> dict[str, Any]:
    """Trains the models of `job` into the prefix `out`, where checkpoints are kept too; facts of the diffusion model.

    Raises:
        UserError: the job does not train, `out` holds another training, or several nodes do not share it.
    """
    if not isinstance(job, ImageTrainingJob | TextTrainingJob):
        raise UserError(f"{job.job}: a sampling job trains nothing")
    if launch.here().nodes > 1 and not storage.is_remote(out) and not Path(out).is_dir():
        raise UserError(f"--out {out}: not there; several nodes need a remote prefix or a folder that all mount")
    sections = job.model_dump(mode="json")
    work = storage.join(out, ".work")
    with scratches.temporary_folder("job") as folder:
        data = folder / "dataset"
        run(PrepareDataRequest(modality=job.modality, data=sections["data"], out=data))
        start: Path | None = None
        if isinstance(job, TextTrainingJob):
            first = folder / "autoregressive"
            run(
                TrainRequest(
                    modality=job.modality,
                    model=sections["model"],
                    train=sections["autoregressive"],
                    dataset=data,
                    out=first,
                    objective="autoregressive",
                    work=work,
                )
            )
            _shared(first, storage.join(out, "autoregressive"))
            start = first if job.warm_start else None
        model = folder / "model"
        facts = run(
            TrainRequest(
                modality=job.modality,
                model=sections["model"],
                train=sections["train"],
                dataset=data,
                out=model,
                work=work,
                warm_start=start,
            )
        )
        if model.exists():
            storage.copy_tree(model, storage.join(out, "model"))
            storage.write_json(storage.join(out, "complete.json"), {**facts, "job": sections})
    return facts


def _shared(folder: Path, uri: str) -> None:
    """Publishes `folder` where this node has it, and fetches it where another one has."""
    mark = f"{uri}.json"
    if folder.exists():
        storage.copy_tree(folder, uri)
        storage.write_json(mark, {"published": uri})
        return
    deadline = time.monotonic() + WAIT
    while not storage.exists(mark):
        if time.monotonic() > deadline:
            raise UserError(f"{mark}: not there after {WAIT:.0f} s: can all nodes write to and read from --out?")
        time.sleep(1)
    storage.copy_tree(uri, folder)
