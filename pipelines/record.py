"""run.json of a run on a service, in the form that a local run has, and the folder that shows and compares it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import storage
from core.config import config_hash
from core.errors import UserError
from core.evaluation import METRICS, VERDICT
from core.names import inside
from factory.run_folder import Run
from pipelines.views import ENDED, Step, View

Artifacts = Mapping[str, Mapping[str, Any]]
"""{"uri", "metadata"} of what a step has made, by name."""


def record(
    shown: View, runner: str, pipeline: str, parameters: Mapping[str, Any], artifacts: Mapping[str, Artifacts]
) -> dict[str, Any]:
    """The content of run.json.

    Args:
        shown: the run as it is now.
        runner: the service.
        pipeline: name of the pipeline.
        parameters: what the run was begun with.
        artifacts: what its steps have made, by their names.
    """
    metadata = [one["metadata"] for made in artifacts.values() for one in made.values()]
    cost = {"usd": round(shown.usd, 4)} if shown.usd is not None else {}
    return {
        "id": shown.run,
        "pipeline": pipeline,
        "job": shown.job,
        "status": shown.state if shown.state in ENDED else "running",
        "created": shown.created.isoformat(timespec="seconds") if shown.created else None,
        "seconds": round(shown.seconds, 3),
        "runner": runner,
        **{key: next((one[key] for one in metadata if key in one), None) for key in ("code_version", "image")},
        "config": dict(parameters),
        "config_hash": config_hash(parameters),
        **cost,
        "parents": [],
        "steps": [_entry(step, artifacts.get(step.name, {})) for step in shown.steps],
        "gate": _gate(artifacts.get("gate", {})),
    }


def peek(facts: dict[str, Any], scratch: Path) -> Run:
    """A run as a folder that holds run.json and metrics.json only: enough to show and to compare it."""
    for step in facts["steps"]:
        uri = step["artifacts"].get("evaluation", {}).get("uri")
        if uri and storage.exists(storage.join(uri, METRICS)):
            storage.write_bytes(scratch / METRICS, storage.read_bytes(storage.join(uri, METRICS)))
    storage.write_json(scratch / "run.json", facts)
    return Run(scratch, facts)


def downloaded(facts: dict[str, Any], folder: Path) -> Run:
    """A run whose artifacts were copied to `folder`/steps: what shows it lies where a local run has it."""
    for source, name in ((METRICS, METRICS), ("report", "report.html")):
        path = inside(folder, f"steps/evaluate/{source}")
        if path.is_file():
            storage.write_bytes(inside(folder, name), path.read_bytes())
    storage.write_json(folder / "run.json", facts)
    return Run(folder, facts)


def _entry(step: Step, made: Artifacts) -> dict[str, Any]:
    return {
        "name": step.name,
        "state": step.state,
        "seconds": round(step.seconds, 3),
        "cached": step.state == "cached",
        "error": step.error or None,
        "artifacts": {name: {"path": None, **one} for name, one in made.items()},
    }


def _gate(made: Artifacts) -> dict[str, Any] | None:
    if "verdict" not in made:
        return None
    try:
        return dict(storage.read_json(storage.join(made["verdict"]["uri"], VERDICT)))
    except UserError:
        return None
