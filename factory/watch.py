"""A service looked at: how long its requests took, and whether its samples are still those that were measured.

What was served is measured again as the run's own samples were: by the same judge, against the same real data, at the
same count, in the same mixture of classes. A metric has drifted when it is worse by more than `THRESHOLD` standard
errors of the difference. What that tells is that requests ask for something else (fewer steps, another guidance), or
that the machine draws something else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from core import storage
from core.config import validate
from core.errors import UserError
from core.images.config import ImageEvaluate
from core.metrics import Metric, find
from core.names import inside
from core.records import Label, Record, Seconds, read
from core.storage import scratches
from factory.run_folder import Run, find_run

SERVED = "served.json"
SAMPLES = {"images": "samples/samples.npz", "text": "samples/samples.jsonl"}
THRESHOLD = 3.0
QUANTILES = (0.5, 0.95, 0.99)
_MOST_ROUTES = 1000
Count = Annotated[int, Field(ge=0, le=2**53)]


class Served(Record):
    """served.json: what a service has answered since its model is in service, or since it started."""

    SEALED: ClassVar[bool] = True
    model: Label
    version: Label
    weights_sha256: Label
    modality: Literal["images", "text"]
    since: Label
    until: Label
    served: Count
    kept: Count
    samples_sha256: Label
    run: Label | None = None
    steps: dict[Label, Count] = Field(default_factory=dict)
    requests: Annotated[dict[Label, dict[Label, Count]], Field(max_length=_MOST_ROUTES)]
    seconds: Annotated[dict[Label, Annotated[list[Seconds], Field(max_length=100_000)]], Field(max_length=_MOST_ROUTES)]


@dataclass(frozen=True)
class Compared:
    """A metric of what was served, beside that of the samples by which the model was measured."""

    name: str
    served: Metric
    measured: Metric
    better: str

    @property
    def threshold(self) -> float | None:
        """How far the served value may be on the worse side; None where the spread is not known."""
        spreads = [one.se for one in (self.served, self.measured)]
        return None if None in spreads else THRESHOLD * math.hypot(*(spread or 0.0 for spread in spreads))

    @property
    def worse(self) -> float:
        """By how much what was served is worse."""
        served, measured = self.served.value or 0.0, self.measured.value or 0.0
        if self.better == "floor":
            return abs(served - measured)
        return served - measured if self.better == "lower" else measured - served

    @property
    def drifted(self) -> bool:
        return self.threshold is not None and self.worse > self.threshold

    def facts(self) -> dict[str, Any]:
        """As JSON, a row of the report."""
        return {
            "metric": self.name,
            "served": self.served.value,
            "measured": self.measured.value,
            "floor": self.served.floor,
            "worse_by": self.worse,
            "threshold": self.threshold,
            "n": self.served.n,
            "drifted": self.drifted,
            "doubt": self.served.doubt,
        }


def report(folder: str, runs: Path, run: str | None = None) -> dict[str, Any]:
    """What a service left in `folder`: {"model", "requests", "latencies", "compared", "count", "drifted", ...}.

    Args:
        folder: that `serve --watch` writes to; a path or a URI.
        runs: folder of runs.
        run: that measured the model; None: the one that the registry names.

    Raises:
        UserError: nothing was written there, it is damaged, or there is no run to compare with.
    """
    served = read(Served, storage.join(folder, SERVED))
    place = SAMPLES[served.modality]
    if storage.sha256(inside(folder, place)) != served.samples_sha256:
        raise UserError(f"{folder}: {place} is not the one that {SERVED} names; it is being written: try again")
    compared, count, source = _compared(served, folder, runs, run)
    return {
        "model": served.model,
        "version": served.version,
        "since": served.since,
        "until": served.until,
        "requests": served.requests,
        "latencies": [_latency(route, values) for route, values in sorted(served.seconds.items())],
        "served": served.served,
        "kept": served.kept,
        "steps": served.steps,
        "run": source,
        "count": count,
        "compared": [one.facts() for one in compared],
        "drifted": [one.name for one in compared if one.drifted],
    }


def _latency(route: str, values: list[float]) -> dict[str, Any]:
    """Quantiles in milliseconds."""
    ordered = sorted(values)
    at = {f"p{round(100 * q)}_ms": 1000 * ordered[math.ceil(q * len(ordered)) - 1] for q in QUANTILES if ordered}
    return {"route": route, "n": len(values), **at}


def _compared(served: Served, folder: str, runs: Path, name: str | None) -> tuple[list[Compared], int, str]:
    run = _run(served, runs, name)
    artifacts = run.artifacts()
    places: dict[str, Path] = {}
    for part in ("dataset", "judge", "samples"):
        if not artifacts.get(part, {}).get("path"):
            raise UserError(f"run {run.id}: has no {part}; watching needs the run that trained and measured the model")
        places[part] = artifacts[part]["path"]
    with scratches.temporary_folder("watch") as scratch:
        storage.copy_tree(storage.join(folder, "samples"), scratch)
        if served.modality == "images":
            from core.images import watch as images
            from core.images.glossary import GLOSSARY

            config = validate(ImageEvaluate, run.facts["config"].get("evaluate") or {}, "evaluate")
            first, second, count = images.compare(scratch, **places, config=config)
        else:
            from core.text import watch as text
            from core.text.glossary import GLOSSARY

            first, second, count = text.compare(scratch, **places)
    directions = {key: found[0].better for key in first if (found := find(GLOSSARY, key))}
    return [Compared(key, first[key], second[key], directions[key]) for key in first if key in second], count, run.id


def _run(served: Served, runs: Path, name: str | None) -> Run:
    wanted = name or served.run
    if not wanted:
        raise UserError(f"{served.model}: {SERVED} names no run, as of a model of no registry; name it: --run RUN")
    run = find_run(runs, wanted)
    trained = run.artifacts().get("model", {}).get("metadata", {}).get("weights_sha256")
    if trained and trained != served.weights_sha256:
        raise UserError(f"run {run.id}: trained weights {trained[:12]}..; served are {served.weights_sha256[:12]}..")
    return run
