"""Runs on Vertex as run folders: the same tree here as a local run leaves, so that the same commands read it.

gs://BUCKET/<pipeline>/<run>/run.json           state and steps, written at submission and whenever it is read
gs://BUCKET/<pipeline>/<run>/steps/...          artifacts, laid out by Vertex; run.json says where each is
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import storage
from core.config import config_hash
from core.errors import UserError
from core.names import inside, single
from factory.lineage import restore_ints
from factory.run_folder import Run
from pipelines.vertex.client import Vertex
from pipelines.vertex.downloads import fetch_tree
from pipelines.vertex.monitor import view
from pipelines.vertex.submit import get_run
from pipelines.views import View

_IN_METADATA = ("metrics", "classification")
_FACTS = ("code_version", "image")


def facts(vertex: Vertex, run: str) -> dict[str, Any]:
    """run.json of a run in the cloud, made from what Vertex AI knows now; it is written next to the artifacts."""
    from google.cloud import aiplatform_v1
    from google.protobuf import json_format

    job = get_run(vertex, run)
    shown = view(job)
    message = json_format.MessageToDict(aiplatform_v1.PipelineJob.pb(job))
    parameters = restore_ints(message.get("runtimeConfig", {}).get("parameterValues", {}))
    pipeline = message.get("pipelineSpec", {}).get("pipelineInfo", {}).get("name", "")
    metadata = [artifact["metadata"] for step in shown.steps for artifact in step.artifacts.values()]
    record = {
        "id": shown.run,
        "pipeline": pipeline,
        "job": shown.job,
        "status": shown.state if shown.state in ("succeeded", "failed", "cancelled") else "running",
        "created": shown.created.isoformat(timespec="seconds") if shown.created else None,
        "seconds": round(shown.seconds, 3),
        "runner": "vertex",
        **{key: next((m[key] for m in metadata if key in m), None) for key in _FACTS},
        "config": parameters,
        "config_hash": config_hash(parameters),
        "usd": round(shown.usd or 0.0, 4),
        "parents": [],
        "steps": [_entry(step) for step in shown.steps],
        "gate": _gate(shown),
    }
    if pipeline and shown.state in ("succeeded", "failed", "cancelled"):
        storage.write_json(storage.join(vertex.project.run_folder(pipeline, shown.run), "run.json"), record)
    return record


def download(vertex: Vertex, run: str, target: Path, say: Any = lambda line: None) -> Run:
    """Copies a run's artifacts into the folder `target`, laid out as a local run; picks up what an earlier try left.

    Every file is verified by the checksum that the store keeps.

    Raises:
        UserError: there is no such run, or a file does not arrive whole.
    """
    record = facts(vertex, run)
    for step in record["steps"]:
        for name, artifact in step["artifacts"].items():
            if name in _IN_METADATA or not artifact["uri"].startswith("gs://"):
                continue
            folder = inside(target, f"steps/{single(step['name'], run)}")
            count = fetch_tree(vertex, artifact["uri"], folder, name)
            one_object = inside(folder, name).is_file()  # an artifact that is one object, such as a report
            artifact["path"] = f"steps/{step['name']}/{name}" if one_object else f"steps/{step['name']}"
            say(f"{step['name']}/{name}: {count} files")
    return _finished(target, record)


def peek(vertex: Vertex, run: str, scratch: Path) -> Run:
    """A run as a folder that holds run.json and metrics.json only: enough to show and to compare it."""
    record = facts(vertex, run)
    for step in record["steps"]:
        evaluation = step["artifacts"].get("evaluation")
        if evaluation:
            uri = storage.join(evaluation["uri"], "metrics.json")
            if storage.exists(uri):
                storage.write_bytes(scratch / "steps" / "evaluate" / "metrics.json", storage.read_bytes(uri))
    return _finished(scratch, record)


def _finished(folder: Path, record: Mapping[str, Any]) -> Run:
    metrics = folder / "steps" / "evaluate" / "metrics.json"
    if metrics.exists():
        storage.write_bytes(folder / "metrics.json", metrics.read_bytes())
    report = folder / "steps" / "evaluate" / "report"
    if report.is_file():
        storage.write_bytes(folder / "report.html", report.read_bytes())
    storage.write_json(folder / "run.json", record)
    return Run(folder, dict(record))


def _entry(step: Any) -> dict[str, Any]:
    artifacts = {
        name: {"path": None, "uri": artifact["uri"], "metadata": restore_ints(artifact["metadata"])}
        for name, artifact in step.artifacts.items()
    }
    return {
        "name": step.name,
        "state": step.state,
        "seconds": round(step.seconds, 3),
        "cached": step.state == "cached",
        "error": step.error or None,
        "artifacts": artifacts,
    }


def _gate(shown: View) -> dict[str, Any] | None:
    for step in shown.steps:
        if step.name == "gate" and "verdict" in step.artifacts:
            uri = storage.join(step.artifacts["verdict"]["uri"], "verdict.json")
            try:
                return dict(storage.read_json(uri))
            except UserError:
                return None
    return None
