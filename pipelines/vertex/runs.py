"""Runs on Vertex as run folders: the same tree here as a local run leaves, so that the same commands read it.

gs://BUCKET/<pipeline>/<run>/run.json           state and steps, written at submission and whenever it is read
gs://BUCKET/<pipeline>/<run>/steps/...          artifacts, laid out by Vertex; run.json says where each is
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core import storage
from core.names import inside, single
from factory.lineage import restore_ints
from factory.run_folder import Run
from pipelines.record import downloaded, record
from pipelines.vertex.client import Vertex
from pipelines.vertex.downloads import fetch_tree
from pipelines.vertex.monitor import view
from pipelines.vertex.submit import get_run
from pipelines.views import ENDED

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
    artifacts = {
        step.name: {
            name: {"uri": artifact["uri"], "metadata": restore_ints(artifact["metadata"])}
            for name, artifact in step.artifacts.items()
        }
        for step in shown.steps
    }
    found = record(shown, "vertex", pipeline, parameters, artifacts)
    if pipeline and shown.state in ENDED:
        storage.write_json(storage.join(vertex.project.run_folder(pipeline, shown.run), "run.json"), found)
    return found


def download(vertex: Vertex, run: str, target: Path, say: Any = lambda line: None) -> Run:
    """Copies a run's artifacts into the folder `target`, laid out as a local run; picks up what an earlier try left.

    Every file is verified by the checksum that the store keeps.

    Raises:
        UserError: there is no such run, or a file does not arrive whole.
    """
    found = facts(vertex, run)
    for step in found["steps"]:
        for name, artifact in step["artifacts"].items():
            if name in _IN_METADATA or not artifact["uri"].startswith("gs://"):
                continue
            folder = inside(target, f"steps/{single(step['name'], run)}")
            count = fetch_tree(vertex, artifact["uri"], folder, name)
            one_object = inside(folder, name).is_file()  # an artifact that is one object, such as a report
            artifact["path"] = f"steps/{step['name']}/{name}" if one_object else f"steps/{step['name']}"
            say(f"{step['name']}/{name}: {count} files")
    return downloaded(found, target)
