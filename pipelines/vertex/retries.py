"""A run that did not come to its end goes on: from its failed step, or on the next of the machines it was given."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from core.errors import UserError
from factory.lineage import restore_ints
from factory.run_folder import new_run_id
from pipelines.machines import Machine, choose, load_machines
from pipelines.service import Submission
from pipelines.settings import Settings
from pipelines.step_options import with_machine
from pipelines.vertex.client import Vertex
from pipelines.vertex.monitor import view
from pipelines.vertex.submit import EXPERIMENT, MACHINES, MAX_COST, cancel, get_run, submit
from pipelines.views import ENDED, View, follow

_OWN = ("textdiffusion-job", "textdiffusion-config", EXPERIMENT)  # labels that `submit` writes


def watch(
    vertex: Vertex,
    run: str,
    show: Callable[[View], None],
    say: Callable[[str], None],
    settings: Settings,
    *,
    interval: float = 10.0,
) -> View:
    """Follows a run to its end. If its machines cannot be had, it goes on with the next ones it was submitted with.

    The run on the next machine has a name that follows from the first, so of several who watch only one starts it.
    """
    rows = load_machines(settings.machines)
    while True:
        look = partial(_look, vertex, run, rows)
        shown = follow(look, _ending(vertex, run, show, say), interval=interval)
        if not shown.out_of_capacity:
            return shown
        following = next_machine(vertex, run, rows)
        if following is None:
            return shown
        submission, before, machine = following
        say(f"{run}: no {before} to be had; going on as {submission.run} on {machine}")
        submit(vertex, submission, exists_ok=True)
        run = submission.run


def _look(vertex: Vertex, run: str, rows: Mapping[str, Machine]) -> View:
    return view(get_run(vertex, run), rows)


def _ending(
    vertex: Vertex, run: str, show: Callable[[View], None], say: Callable[[str], None]
) -> Callable[[View], None]:
    """`show`, which also ends the run once it has cost more than its cap."""
    text = get_run(vertex, run).labels.get(MAX_COST, "").replace("_", ".")
    cap = float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None
    asked: list[str] = []

    def shown(now: View) -> None:
        show(now)
        if cap is not None and (now.usd or 0) > cap and now.state not in ENDED and not asked:
            asked.append(run)
            say(f"{run}: has cost {now.usd:.2f} USD, more than --max-cost {cap:g}: it is cancelled")
            cancel(vertex, run)

    return shown


def retry(vertex: Vertex, run: str, settings: Settings) -> Submission:
    """Starts a run again from its failed step; on the next machine, if there was none of the last.

    Raises:
        UserError: the run has not failed or been cancelled, or it went on already.
    """
    shown = view(get_run(vertex, run), {})
    if shown.state not in ("failed", "cancelled"):
        raise UserError(f"run {shown.run}: is {shown.state}; only a failed or cancelled run is started again")
    rows = load_machines(settings.machines)
    following = next_machine(vertex, shown.run, rows) if shown.out_of_capacity else None
    submission = following[0] if following else again(vertex, shown.run)
    submit(vertex, submission)
    return submission


def next_machine(vertex: Vertex, run: str, rows: Mapping[str, Machine]) -> tuple[Submission, str, str] | None:
    """The submission of a run on the machine after the one it had, with the names of both; None after the last."""
    before, *left = get_run(vertex, run).labels.get(MACHINES, "").split("_")
    if not left:
        return None
    tried = re.fullmatch(r"(.+)-machine-(\d+)", run)
    first, number = (tried[1], int(tried[2])) if tried else (run, 1)
    submission = again(vertex, run, f"{first}-machine-{number + 1}")
    spec = with_machine(submission.spec, choose(rows, left[0], MACHINES))
    labels = {**submission.labels, MACHINES: "_".join(left)}
    return replace(submission, spec=spec, labels=labels), before, left[0]


def again(vertex: Vertex, run: str, identity: str = "") -> Submission:
    """The submission that goes on from the failed step of a run: same spec and parameters, so that every step that
    succeeded is taken from the cache, and a training that was cut resumes from its checkpoint.

    Args:
        vertex: the services.
        run: an earlier run.
        identity: id of the new run; empty: a new one.
    """
    from google.cloud import aiplatform_v1
    from google.protobuf import json_format

    stopped = get_run(vertex, run)
    message = json_format.MessageToDict(aiplatform_v1.PipelineJob.pb(stopped))
    job = stopped.labels.get("textdiffusion-job", "")
    if not job:
        raise UserError(f"run {run}: was not submitted by TextDiffusion")
    identity = identity or new_run_id(job)
    parameters: dict[str, Any] = restore_ints(message["runtimeConfig"].get("parameterValues", {}))
    if "run" in parameters:
        parameters["run"] = identity
    labels = {key: value for key, value in stopped.labels.items() if key not in _OWN}
    labels["textdiffusion-retry-of"] = stopped.name.rsplit("/", 1)[1][:63]
    fail_fast = message["runtimeConfig"].get("failurePolicy") == "PIPELINE_FAILURE_POLICY_FAIL_FAST"
    return Submission(
        identity, job, message["pipelineSpec"], parameters, labels, stopped.labels.get(EXPERIMENT, ""), fail_fast
    )
