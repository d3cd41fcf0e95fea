"""A service looked at: how long its requests took, and whether its samples are still those that were measured.

What was served is measured again as the run's own samples were: by the same judge, against the same real data, at the
same count, in the same mixture of classes. A metric has drifted when it is worse by more than `THRESHOLD` standard
errors of the difference. What that tells is that requests ask for something else (fewer steps, another guidance), or
that the machine draws something else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
INTERVALS = 1000  # between two writings of a service, that are remembered
Count = Annotated[int, Field(ge=0, le=2**53)]


class Interval(Record):
    """What all routes together answered between two writings; quantiles in seconds, of answers that were no error."""

    until: Label
    n: Count
    refused: Count  # with a status of 400 or more
    p50: Seconds | None = None
    p95: Seconds | None = None
    p99: Seconds | None = None


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
    history: Annotated[list[Interval], Field(max_length=INTERVALS)] = Field(default_factory=list)


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


@dataclass(frozen=True)
class Looked:
    """What a service left, and what came of its comparison; `reason` says why there is none."""

    served: Served
    compared: list[Compared]
    count: int
    run: str
    reason: str | None

    @property
    def drifted(self) -> list[str]:
        return [one.name for one in self.compared if one.drifted]

    def facts(self) -> dict[str, Any]:
        """As JSON: {"model", "requests", "latencies", "history", "compared", "count", "drifted", ...}."""
        served = self.served.model_dump(mode="json", include=_TOLD)
        return {
            **served,
            "latencies": [_latency(route, values) for route, values in sorted(self.served.seconds.items())],
            "run": self.run,
            "count": self.count,
            "compared": [one.facts() for one in self.compared],
            "not_compared": self.reason,
            "drifted": self.drifted,
        }


_TOLD = {"model", "version", "modality", "since", "until", "requests", "history", "served", "kept", "steps"}


def look(folder: str, runs: Path, run: str | None = None, page: Path | None = None) -> Looked:
    """What a service left in `folder`, compared with what measured its model.

    Args:
        folder: that `serve --watch` writes to; a path or a URI.
        runs: folder of runs.
        run: that measured the model; None: the one that the registry names.
        page: the file to write it to as HTML, or None.

    Raises:
        UserError: nothing was written there, or it is damaged.
    """
    served = read(Served, storage.join(folder, SERVED))
    place = SAMPLES[served.modality]
    with scratches.temporary_folder("watch") as scratch:
        samples = scratch / "samples"
        storage.copy_tree(storage.join(folder, "samples"), samples)
        if storage.sha256(inside(scratch, place)) != served.samples_sha256:
            raise UserError(f"{folder}: {place} is not the one that {SERVED} names; it is being written: try again")
        found, dataset = Looked(served, [], 0, served.run or "", None), None
        try:
            measured = _run(served, runs, run)
            dataset = measured.folders().get("dataset")
            compared, count = _compared(served, samples, measured)
            found = Looked(served, compared, count, measured.id, None)
        except UserError as error:  # how long requests took is known all the same
            found = replace(found, reason=str(error))
        if page is not None:
            from report import service

            service.build(page, found.facts(), served.seconds, samples=samples, dataset=dataset)
    return found


def _latency(route: str, values: list[float]) -> dict[str, Any]:
    """Quantiles in milliseconds."""
    at = {f"{name}_ms": 1000 * value for name, value in quantiles(values).items()}
    return {"route": route, "n": len(values), **at}


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 of `values`; nothing of nothing."""
    ordered = sorted(values)
    return {f"p{round(100 * q)}": ordered[math.ceil(q * len(ordered)) - 1] for q in QUANTILES if ordered}


def _compared(served: Served, samples: Path, run: Run) -> tuple[list[Compared], int]:
    artifacts = run.artifacts()
    places: dict[str, Path] = {}
    for part in ("dataset", "judge", "samples"):
        if not artifacts.get(part, {}).get("path"):
            raise UserError(f"run {run.id}: has no {part}; watching needs the run that trained and measured the model")
        places[part] = artifacts[part]["path"]
    if served.modality == "images":
        from core.images import watch as images
        from core.images.glossary import GLOSSARY

        config = validate(ImageEvaluate, run.facts["config"].get("evaluate") or {}, "evaluate")
        first, second, count = images.compare(samples, **places, config=config)
    else:
        from core.text import watch as text
        from core.text.glossary import GLOSSARY

        first, second, count = text.compare(samples, **places)
    directions = {key: found[0].better for key in first if (found := find(GLOSSARY, key))}
    return [Compared(key, first[key], second[key], directions[key]) for key in first if key in second], count


def _run(served: Served, runs: Path, name: str | None) -> Run:
    wanted = name or served.run
    if not wanted:
        raise UserError(f"{served.model}: {SERVED} names no run, as of a model of no registry; name it: --run RUN")
    run = find_run(runs, wanted)
    trained = run.artifacts().get("model", {}).get("metadata", {}).get("weights_sha256")
    if trained and trained != served.weights_sha256:
        raise UserError(f"run {run.id}: trained weights {trained[:12]}..; served are {served.weights_sha256[:12]}..")
    return run
