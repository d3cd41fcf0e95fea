"""Watching a run on Vertex: its steps as a tree with state, time, cost so far and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from core import jsontext
from core.config import validate
from core.errors import UserError
from core.records import Label, Note, Record
from pipelines import costs
from pipelines.machines import Machine, load_machines
from pipelines.views import ENDED, Step, View, arrange

STATES = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "CANCEL_PENDING": "cancelling",
    "CANCELLING": "cancelling",
    "CANCELLED": "cancelled",
    "FAILED": "failed",
    "SKIPPED": "cached",
    "NOT_TRIGGERED": "skipped",
}
_LAUNCHED = ("CustomJob", "HyperparameterTuningJob")


class _Resource(Record):
    resourceType: Label = ""  # noqa: N815  # as the launcher writes it
    resourceUri: Note = ""  # noqa: N815


class _Launched(Record):
    resources: tuple[_Resource, ...] = ()


def view(job: Any, machines: Mapping[str, Machine] | None = None) -> View:
    """The state of a pipeline job, from its message."""
    from google.cloud import aiplatform_v1
    from google.protobuf import json_format

    spec = json_format.MessageToDict(aiplatform_v1.PipelineJob.pb(job)).get("pipelineSpec", {})
    prices = costs.hourly(spec, machines if machines is not None else load_machines()) if spec else {}
    run = job.name.rsplit("/", 1)[1]
    now = job.end_time or datetime.now(UTC)
    root = Step(run, _state(job.state.name), _seconds(job.start_time, job.end_time, now), None, "", (), {})
    details = list(job.job_detail.task_details)
    steps = {detail.task_id: _step(detail, prices, now) for detail in details}
    for detail in details:
        if detail.task_name == run and not detail.parent_task_id:
            steps[detail.task_id] = root
        else:
            steps.get(detail.parent_task_id, root).steps.append(steps[detail.task_id])
    if spec:
        arrange(root, spec["root"], spec["components"], ended=root.state in ENDED)
    usd = costs.RUN_FEE + sum(step.usd or 0.0 for step in root.all())
    return View(
        run, job.labels.get("textdiffusion-job", ""), root.state, root.seconds, usd, job.error.message, root,
        job.create_time,
    )  # fmt: skip


def _step(detail: Any, prices: Mapping[str, float], now: datetime) -> Step:
    state = STATES.get(detail.state.name, detail.state.name.lower())
    seconds = _seconds(detail.start_time, detail.end_time, now) if state not in ("cached", "skipped") else 0.0
    price = prices.get(detail.task_name)
    container = detail.executor_detail.container_detail
    jobs = [name for name in (*container.failed_main_jobs, container.main_job) if name]
    metadata = dict(detail.execution.metadata or {})
    jobs += launched(str(metadata.get("output:gcp_resources") or ""))
    artifacts = {
        name: {
            "uri": listed.artifacts[0].uri,
            "metadata": plain(listed.artifacts[0].metadata or {}),
            "name": listed.artifacts[0].name,
        }
        for name, listed in detail.outputs.items()
        if listed.artifacts
    }
    errors = [detail.error.message, *(status.error.message for status in detail.pipeline_task_status)]
    return Step(
        detail.task_name, state, seconds, None if price is None else price * seconds / 3600,
        next(filter(None, errors), "") if state == "failed" else "", tuple(jobs), artifacts,
    )  # fmt: skip


def plain(value: Any) -> Any:
    """A value out of a protobuf message as plain dictionaries and lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value


def launched(resources: str) -> list[str]:
    """Names of the custom and tuning jobs that a launcher started, from its `gcp_resources` output."""
    try:
        resources_named = validate(_Launched, jsontext.parse(resources, ""), "").resources
    except UserError:
        return []
    uris = [item.resourceUri for item in resources_named if item.resourceType in _LAUNCHED]
    return [uri.partition("/v1/")[2] for uri in uris if "/v1/" in uri]


def _state(name: str) -> str:
    return name.removeprefix("PIPELINE_STATE_").lower()


def _seconds(start: Any, end: Any, now: datetime) -> float:
    return max(0.0, ((end or now) - start).total_seconds()) if start else 0.0
