"""run.json as it is read back: every key of the type and size that commands and reports rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from core.evaluation import Verdict
from core.records import Label, Note, Record, Search, Seconds, facts, read

MOST_STEPS = 10_000
MOST_THREADS = 100_000
MOST_PIDS = 2**31 - 1


class ArtifactRecord(Record):
    """One artifact of a step. `path` is relative to the run's folder."""

    path: Note | None = None
    uri: Note = ""
    type: Label = ""
    metadata: dict[str, Any] = Field(default_factory=dict)


class StepRecord(Record):
    """One step of a run."""

    name: Label
    state: Label
    seconds: Seconds | None = None
    cached: bool = False
    error: Note | None = None
    artifacts: dict[Label, ArtifactRecord] = Field(default_factory=dict)


class RunRecord(Record):
    """One run. What is not there is None or empty."""

    id: Label
    job: Label
    status: Label
    steps: Annotated[list[StepRecord], Field(max_length=MOST_STEPS)]
    pipeline: Label = ""
    created: Label | None = None
    seconds: Seconds | None = None
    runner: Label | None = None
    code_version: Label | None = None
    image: Note | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    config_hash: Label | None = None
    parents: list[Label] = Field(default_factory=list)
    host: Label | None = None
    pid: int | None = Field(None, ge=1, le=MOST_PIDS)
    gate: Verdict | None = None
    search: Search | None = None
    threads: int | None = Field(None, ge=1, le=MOST_THREADS)


def read_run(folder: Path) -> dict[str, Any]:
    """The content of a run folder's run.json, as `Run.facts` keeps it.

    Raises:
        UserError: it cannot be read, or is not the record of a run; the line names the key.
    """
    record = read(RunRecord, str(folder / "run.json"))
    steps = [{**step.model_dump(exclude={"artifacts"}), "artifacts": _artifacts(step)} for step in record.steps]
    return {**facts(record), "pipeline": record.pipeline, "config": record.config, "steps": steps}


def _artifacts(step: StepRecord) -> dict[str, Any]:
    return {name: artifact.model_dump() for name, artifact in step.artifacts.items()}
