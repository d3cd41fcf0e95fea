"""Schedules: retraining at fixed times, each found by its name and changed in place."""

from __future__ import annotations

from typing import Any

from core.errors import UserError
from pipelines.cron import split_zone, with_zone
from pipelines.service import Entry, Submission, the_schedule
from pipelines.vertex.client import Vertex, one_line
from pipelines.vertex.submit import pipeline_job


def create(
    vertex: Vertex, name: str, submission: Submission, cron: str, zone: str, *, end: str = "", runs: int = 0
) -> Entry:
    """Makes a schedule.

    Args:
        vertex: the services.
        name: unlike that of every other schedule of the project.
        submission: what each run is; the service gives each run an id of its own.
        cron: five fields.
        zone: IANA time zone in which they are meant.
        end: RFC 3339 time after which nothing is started; empty: never.
        runs: most runs to start; 0: without limit.

    Raises:
        UserError: the name is taken, or cron or zone are not valid.
    """
    expression = with_zone(cron, zone)
    if any(entry.name == name for entry in listed(vertex)):
        raise UserError(f"schedule {name!r}: there is one already; change it with `textdiffusion schedule update`")
    from google.cloud import aiplatform_v1

    schedule = aiplatform_v1.Schedule(
        display_name=name,
        cron=expression,
        max_concurrent_run_count=1,  # a retraining that is late must not meet the next one
        allow_queueing=False,
        create_pipeline_job_request=_request(vertex, submission, name),
    )
    if end:
        schedule.end_time = end
    if runs:
        schedule.max_run_count = runs
    with one_line(f"schedule {name}"):
        return _entry(vertex.schedules.create_schedule(parent=vertex.project.parent, schedule=schedule))


def update(vertex: Vertex, name: str, *, submission: Submission | None = None, cron: str = "", zone: str = "") -> Entry:
    """Changes a schedule in place: its runs, its times, or both; what is not given stays, and so does its history.

    Raises:
        UserError: there is no such schedule, nothing is changed, or cron or zone are not valid.
    """
    from google.cloud import aiplatform_v1

    entry = find(vertex, name)
    change = aiplatform_v1.Schedule(name=entry.resource)
    paths = []
    if cron or zone:
        old_zone, old_cron = split_zone(entry.cron)
        change.cron = with_zone(cron or old_cron, zone or old_zone)
        paths.append("cron")
    if submission is not None:
        change.create_pipeline_job_request = _request(vertex, submission, entry.name)
        paths.append("create_pipeline_job_request")
    if not paths:
        raise UserError(f"schedule {name!r}: nothing to change; give --cron, --timezone, --set or --job")
    with one_line(f"schedule {name}"):
        return _entry(vertex.schedules.update_schedule(schedule=change, update_mask={"paths": paths}))


def listed(vertex: Vertex) -> list[Entry]:
    """All schedules of pipelines in the project and region."""
    with one_line("schedules"):
        return [_entry(item) for item in vertex.schedules.list_schedules(parent=vertex.project.parent)]


def find(vertex: Vertex, name: str) -> Entry:
    """The schedule called `name`.

    Raises:
        UserError: there is none, or the name is not unique.
    """
    return the_schedule(listed(vertex), name)


def pause(vertex: Vertex, name: str) -> None:
    """No more runs until `resume`."""
    with one_line(f"schedule {name}"):
        vertex.schedules.pause_schedule(name=find(vertex, name).resource)


def resume(vertex: Vertex, name: str, *, catch_up: bool = False) -> None:
    """Runs start again; `catch_up` also starts those that were missed."""
    with one_line(f"schedule {name}"):
        vertex.schedules.resume_schedule(request={"name": find(vertex, name).resource, "catch_up": catch_up})


def delete(vertex: Vertex, name: str) -> None:
    """Removes a schedule; the runs it started stay."""
    with one_line(f"schedule {name}"):
        vertex.schedules.delete_schedule(name=find(vertex, name).resource).result(timeout=120)


def _request(vertex: Vertex, submission: Submission, name: str) -> Any:
    from google.cloud import aiplatform_v1

    job = pipeline_job(submission, vertex.project)
    job.display_name = name  # each run gets an id of its own from the service, and a folder of that name in this one:
    job.runtime_config.gcs_output_directory = vertex.project.run_folder(submission.pipeline, name)
    return aiplatform_v1.CreatePipelineJobRequest(parent=vertex.project.parent, pipeline_job=job)


def _entry(schedule: Any) -> Entry:
    job = schedule.create_pipeline_job_request.pipeline_job
    return Entry(
        schedule.display_name,
        job.labels.get("textdiffusion-job", ""),
        schedule.cron,
        schedule.state.name.lower(),
        schedule.next_run_time.isoformat() if schedule.next_run_time and schedule.state.name == "ACTIVE" else "",
        schedule.last_scheduled_run_response.run_response.rsplit("/", 1)[-1],
        schedule.started_run_count,
        schedule.name,
    )
