"""Sending a compiled pipeline to Vertex AI Pipelines.

The request is made by the generated client and not by `aiplatform.PipelineJob.submit`: that one creates a missing
bucket without asking and keeps its project in global state. What is sent is the same.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

from core import storage
from core.config import config_hash
from core.errors import UserError
from pipelines.service import Submission
from pipelines.vertex.client import Project, Vertex, console_url, one_line

RUN_ID = re.compile(r"[a-z][-a-z0-9]{0,126}")  # "less than 128 characters"
EXPERIMENT = "textdiffusion-experiment"
"""Label of a run: the experiment it was put into."""
MACHINES = "textdiffusion-machines"
"""Label of a run: the machine it trains on and those that follow if there is none to be had, joined by `_`."""

MAX_COST = "textdiffusion-max-cost"
"""Label of a run: USD that it may cost, with `_` for the point."""


def pipeline_job(submission: Submission, project: Project) -> Any:
    """The request's `PipelineJob` message.

    It is read from JSON: the client's own conversion of Python values turns an empty mapping into null.
    """
    from google.cloud import aiplatform_v1
    from google.protobuf import json_format

    fields: dict[str, Any] = {
        "displayName": submission.run,
        "pipelineSpec": submission.spec,
        "labels": {
            **submission.labels,
            "textdiffusion-job": submission.job,
            "textdiffusion-config": config_hash(dict(submission.parameters)),
            **({EXPERIMENT: submission.experiment} if submission.experiment else {}),
        },
        "runtimeConfig": {
            "gcsOutputDirectory": f"{project.run_folder(submission.pipeline, submission.run)}/steps",
            "parameterValues": dict(submission.parameters),
            "failurePolicy": "PIPELINE_FAILURE_POLICY_FAIL_FAST"
            if submission.fail_fast
            else "PIPELINE_FAILURE_POLICY_FAIL_SLOW",
        },
    }
    if project.service_account:
        fields["serviceAccount"] = project.service_account
    if project.network:
        fields["network"] = project.network
    if project.encryption_key:
        fields["encryptionSpec"] = {"kmsKeyName": project.encryption_key}
    message = aiplatform_v1.PipelineJob()
    json_format.ParseDict(fields, aiplatform_v1.PipelineJob.pb(message))
    return message


def submit(vertex: Vertex, submission: Submission, *, exists_ok: bool = False) -> str:
    """Starts the run; returns its page in the console. Its run.json is written before it starts.

    Args:
        vertex: the services.
        submission: what is started.
        exists_ok: somebody else may have started it already.

    Raises:
        UserError: the service refuses it.
    """
    from google.api_core.exceptions import Conflict

    project = vertex.project
    if not RUN_ID.fullmatch(submission.run):
        raise UserError(f"run id {submission.run!r}: allowed: lower case letters, digits and dashes, at most 127")
    folder = project.run_folder(submission.pipeline, submission.run)
    with one_line(f"run {submission.run}"):
        storage.write_json(
            storage.join(folder, "run.json"),
            {
                "id": submission.run,
                "pipeline": submission.pipeline,
                "job": submission.job,
                "status": "running",
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "runner": "vertex",
                "config": dict(submission.parameters),
                "config_hash": config_hash(dict(submission.parameters)),
                "console": console_url(project, submission.run),
                "steps": [],
                "gate": None,
            },
        )
        try:
            vertex.pipelines.create_pipeline_job(
                parent=project.parent,
                pipeline_job=pipeline_job(submission, project),
                pipeline_job_id=submission.run,
            )
        except Conflict:
            if not exists_ok:
                raise
        if submission.experiment:
            join_experiment(vertex, submission.run, submission.experiment)
    return console_url(project, submission.run)


def check_experiment(experiment: str) -> None:
    """Raises UserError if an experiment cannot be called so."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", experiment):
        raise UserError(f"experiment {experiment!r}: allowed: lower case letters, digits and dashes, at most 63")


def join_experiment(vertex: Vertex, run: str, experiment: str, *, timeout: float = 60.0) -> None:
    """Puts a run into a Vertex AI experiment, which is made if it is not there."""
    from google.api_core.exceptions import NotFound

    store = f"{vertex.project.parent}/metadataStores/default"
    name = f"{store}/contexts/{experiment}"
    try:
        vertex.metadata.get_context(name=name)
    except NotFound:
        vertex.metadata.create_context(
            parent=store,
            context_id=experiment,
            context={
                "display_name": experiment,
                "schema_title": "system.Experiment",
                "schema_version": "0.0.1",
                "metadata": {"experiment_deleted": False},
            },
        )
    deadline = time.monotonic() + timeout
    wait = 0.1
    while True:  # the run's context is made by the service a little after the run
        context = get_run(vertex, run).job_detail.pipeline_run_context.name
        if context:
            vertex.metadata.add_context_children(context=name, child_contexts=[context])
            return
        if time.monotonic() > deadline:
            raise UserError(f"experiment {experiment}: run {run} was submitted, but has no metadata context yet")
        time.sleep(wait)
        wait = min(2 * wait, 5.0)


def get_run(vertex: Vertex, run: str) -> Any:
    """The pipeline job of a run, by its id or `latest`.

    Raises:
        UserError: there is none.
    """
    if run == "latest":
        newest = next(iter(list_runs(vertex, limit=1)), None)
        if newest is None:
            raise UserError(f"run latest: there is none in {vertex.project.parent}")
        return newest
    if not RUN_ID.fullmatch(run):
        raise UserError(f"run {run!r}: not the id of a run; see `textdiffusion runs`")
    with one_line(f"run {run}"):
        return vertex.pipelines.get_pipeline_job(name=f"{vertex.project.parent}/pipelineJobs/{run}")


def list_runs(vertex: Vertex, *, job: str = "", limit: int = 20) -> list[Any]:
    """The newest runs of TextDiffusion jobs, newest first."""
    wanted = f'labels.textdiffusion-job="{job}"' if job else "labels.textdiffusion-job:*"
    with one_line("runs"):
        messages = vertex.pipelines.list_pipeline_jobs(
            request={"parent": vertex.project.parent, "filter": wanted, "order_by": "create_time desc",
                     "page_size": min(limit, 100)}
        )  # fmt: skip
        return [run for run, _ in zip(messages, range(limit), strict=False)]


def cancel(vertex: Vertex, run: str) -> None:
    """Asks the service to end a run; steps that are running are stopped.

    Raises:
        UserError: there is no such run, or it has ended.
    """
    with one_line(f"run {run}"):
        vertex.pipelines.cancel_pipeline_job(name=get_run(vertex, run).name)
