"""Watching a run on Vertex: its steps as a tree with state, time, cost so far and errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from core import jsontext
from core.config import validate
from core.errors import UserError
from core.printable import printable
from core.records import Label, Note, Record
from pipelines import costs
from pipelines.machines import Machine, load_machines
from pipelines.vertex.client import Vertex
from pipelines.vertex.submit import get_run

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
ENDED = ("succeeded", "failed", "cancelled")
_COLOURS = {"running": "cyan", "succeeded": "green", "cached": "green", "failed": "red", "cancelled": "yellow"}
_LAUNCHED = ("CustomJob", "HyperparameterTuningJob")
_CAPACITY = ("resource_exhausted", "resources are insufficient", "quota", "stockout", "resource_pool_exhausted")


class _Resource(Record):
    resourceType: Label = ""  # noqa: N815  # as the launcher writes it
    resourceUri: Note = ""  # noqa: N815


class _Launched(Record):
    resources: tuple[_Resource, ...] = ()


@dataclass
class Step:
    """One step of a run; a branch or a nested pipeline has steps of its own."""

    name: str
    state: str
    seconds: float
    usd: float | None
    error: str
    jobs: tuple[str, ...]
    """Custom jobs whose logs are this step's, the one that did the work last."""
    artifacts: dict[str, dict[str, Any]]
    steps: list[Step] = field(default_factory=list)

    def all(self) -> Iterator[Step]:
        """This step and all below it."""
        yield self
        for step in self.steps:
            yield from step.all()


@dataclass
class View:
    """A run as it is now."""

    run: str
    job: str
    state: str
    seconds: float
    usd: float
    error: str
    root: Step
    created: datetime | None = None

    @property
    def steps(self) -> list[Step]:
        """All steps that do work, without branches."""
        return [step for step in self.root.all() if not step.steps and step is not self.root]

    def step(self, name: str) -> Step:
        """The step called `name`.

        Raises:
            UserError: the run has none, or has not come to it.
        """
        for step in self.steps:
            if step.name == name:
                return step
        have = ", ".join(step.name for step in self.steps) or "none yet"
        raise UserError(f"step {name!r}: not in run {self.run}; steps so far: {have}")

    @property
    def failed(self) -> list[Step]:
        return [step for step in self.steps if step.state == "failed"]

    @property
    def out_of_capacity(self) -> bool:
        """Whether the run failed because the machines that it asked for could not be had."""
        errors = [step.error.lower() for step in self.failed]
        return self.state == "failed" and any(word in error for error in errors for word in _CAPACITY)


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
        _arrange(root, spec["root"], spec["components"], ended=root.state in ENDED)
    usd = costs.RUN_FEE + sum(step.usd or 0.0 for step in root.all())
    return View(
        run, job.labels.get("textdiffusion-job", ""), root.state, root.seconds, usd, job.error.message, root,
        job.create_time,
    )  # fmt: skip


def _arrange(step: Step, component: Mapping[str, Any], components: Mapping[str, Any], *, ended: bool) -> None:
    """Puts a DAG's steps in the order of its definition, with those that have not begun, and without its branches."""
    by_name = {inner.name: inner for inner in step.steps}
    arranged: list[Step] = []
    waits = "skipped" if ended or step.state == "skipped" else "pending"
    for name in _in_order(component.get("dag", {}).get("tasks", {})):
        task = component["dag"]["tasks"][name]
        inner = by_name.get(name) or Step(name, waits, 0.0, None, "", (), {})
        definition = components[task["componentRef"]["name"]]
        if "dag" in definition:
            _arrange(inner, definition, components, ended=ended)
        # A branch is not a step: its steps are shown in its place.
        arranged += inner.steps if name.startswith("condition-") and "dag" in definition else [inner]
    step.steps = arranged


def _in_order(tasks: Mapping[str, Any]) -> list[str]:
    """Names of tasks so that each comes after those it depends on; otherwise as they are written."""
    order: list[str] = []
    left = dict(tasks)
    while left:
        ready = [n for n, task in left.items() if not set(task.get("dependentTasks", [])) & set(left)] or list(left)
        order += ready
        left = {name: task for name, task in left.items() if name not in ready}
    return order


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


def render(shown: View) -> Any:
    """The tree that is printed."""
    from rich import markup
    from rich.tree import Tree

    def escape(text: str) -> str:
        return markup.escape(printable(text, one_line=True))

    head = f"[bold]{escape(shown.run)}[/] {_coloured(shown.state)}  {clock(shown.seconds)}  {shown.usd:.2f} USD so far"
    tree = Tree(head if shown.state not in ENDED else head.removesuffix(" so far"))

    def grow(parent: Any, steps: list[Step]) -> None:
        for step in steps:
            cost = f"  {step.usd:.2f} USD" if step.usd is not None and step.seconds else ""
            took = f"  {clock(step.seconds)}" if step.seconds else ""
            branch = parent.add(f"{escape(step.name)}  {_coloured(step.state)}{took}{cost}")
            if step.error:
                branch.add(f"[red]{escape(step.error)}[/]")
            grow(branch, step.steps)

    grow(tree, shown.root.steps)
    if shown.error and not shown.failed:
        tree.add(f"[red]{escape(shown.error)}[/]")
    return tree


def _coloured(state: str) -> str:
    colour = _COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else printable(state, one_line=True)


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def exit_code(state: str) -> int:
    """The exit code that says how a run ended: 0 succeeded, 1 failed, 130 cancelled."""
    return {"succeeded": 0, "cancelled": 130}.get(state, 1)


def follow(
    vertex: Vertex,
    run: str,
    show: Callable[[View], None],
    *,
    interval: float = 10.0,
    machines: Mapping[str, Machine] | None = None,
) -> View:
    """Calls `show` each time a run is looked at, until it has ended; returns its last state."""
    misses = 0
    while True:
        try:
            shown = view(get_run(vertex, run), machines)
            misses = 0
        except UserError:
            misses += 1
            if misses > 5:  # a short outage of the service is not the end of the run
                raise
            time.sleep(interval)
            continue
        show(shown)
        if shown.state in ENDED:
            return shown
        time.sleep(interval)
