"""Batch predictions: a file of instances, one JSON object a line, becomes a folder of predictions in the bucket."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import jsontext, storage
from core.errors import UserError
from core.names import inside
from pipelines.vertex.client import Vertex, one_line
from pipelines.vertex.endpoints import Bounds

LARGEST = 100_000_000  # bytes of a file that is read before it is sent
ENDED = ("succeeded", "failed", "cancelled", "expired", "partially_succeeded")


@dataclass(frozen=True)
class Batch:
    """A batch prediction job as it is now."""

    number: str
    name: str
    state: str
    succeeded: int
    failed: int
    output: str
    error: str
    resource: str

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def require_lines(uri: str) -> bytes:
    """The content of a file of instances.

    Raises:
        UserError: it is not there, too large, or a line of it is no JSON object.
    """
    if not storage.exists(uri):
        raise UserError(f"{uri}: no such file")
    content = storage.read_bytes(uri, limit=LARGEST)
    lines = [line for line in content.split(b"\n") if line.strip()]
    if not lines:
        raise UserError(f"{uri}: holds no instance; write one JSON object a line")
    for number, line in enumerate(lines, start=1):
        value = jsontext.parse(line.decode("utf-8", "replace"), f"{uri}: line {number}")
        if not isinstance(value, dict):
            raise UserError(f'{uri}: line {number}: expected a JSON object, such as {{"class": 7, "seed": 1}}')
    return content


def uploaded(vertex: Vertex, source: str, content: bytes) -> str:
    """`source`, or where a file of this machine is in the bucket, named by its content."""
    if storage.is_remote(source):
        return source
    name = f"{Path(source).stem}-{hashlib.sha256(content).hexdigest()[:12]}.jsonl"
    uri = inside(f"gs://{vertex.project.bucket}/batch/instances", name)
    storage.write_bytes(uri, content)
    return uri


def create(
    vertex: Vertex,
    name: str,
    resource: str,
    source: str,
    output: str,
    bounds: Bounds,
    *,
    size: int,
    parameters: Mapping[str, Any],
) -> Batch:
    """Begins a job.

    Args:
        vertex: the services.
        name: MODEL@VERSION.
        resource: of that version, as `endpoints.registered` has it.
        source: gs:// file of instances.
        output: gs:// prefix, in which the service makes a folder.
        bounds: on which machines.
        size: instances of one request.
        parameters: laid under each instance.
    """
    job: dict[str, Any] = {
        "display_name": name,
        "model": resource,
        "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": [source]}},
        "output_config": {"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": output}},
        "dedicated_resources": bounds.batch_resources(),
        "manual_batch_tuning_parameters": {"batch_size": size},
        "labels": {"textdiffusion-model": name.partition("@")[0]},
    }
    if parameters:
        job["model_parameters"] = dict(parameters)
    if vertex.project.service_account:
        job["service_account"] = vertex.project.service_account
    if vertex.project.encryption_key:
        job["encryption_spec"] = {"kms_key_name": vertex.project.encryption_key}
    with one_line(f"batch of {name}"):
        return _batch(vertex.jobs.create_batch_prediction_job(parent=vertex.project.parent, batch_prediction_job=job))


def get(vertex: Vertex, number: str) -> Batch:
    """The job with this number.

    Raises:
        UserError: there is none.
    """
    if not number.isdecimal():
        raise UserError(f"batch {number}: expected a number; `textdiffusion batch list` names them")
    with one_line(f"batch {number}"):
        return _batch(vertex.jobs.get_batch_prediction_job(name=_resource(vertex, number)))


def listed(vertex: Vertex) -> list[Batch]:
    """All batch prediction jobs of the project and region, newest first."""
    with one_line("batches"):
        return [_batch(job) for job in vertex.jobs.list_batch_prediction_jobs(parent=vertex.project.parent)]


def cancel(vertex: Vertex, number: str) -> None:
    """Ends a job; what it has predicted stays."""
    name = get(vertex, number).resource
    with one_line(f"batch {number}"):
        vertex.jobs.cancel_batch_prediction_job(name=name)


def watch(vertex: Vertex, number: str, show: Callable[[Batch], None], interval: float) -> Batch:
    """Waits until a job has ended; `show` gets it each time that it has another state."""
    state = ""
    while True:
        now = get(vertex, number)
        if now.state != state:
            show(now)
        if now.ended:
            return now
        state = now.state
        time.sleep(interval)


def _resource(vertex: Vertex, number: str) -> str:
    return f"{vertex.project.parent}/batchPredictionJobs/{number}"


def _batch(job: Any) -> Batch:
    stats = job.completion_stats
    return Batch(
        job.name.rsplit("/", 1)[1],
        job.display_name,
        job.state.name.removeprefix("JOB_STATE_").lower(),
        int(stats.successful_count),
        int(stats.failed_count),
        job.output_info.gcs_output_directory,
        job.error.message,
        job.name,
    )
