"""Pipeline schedules; `fire` starts a run now, as the clock would."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from google.cloud import aiplatform_v1 as v1
from google.longrunning import operations_pb2

from tests.fakes.vertex.errors import ServiceError, invalid, not_found
from tests.fakes.vertex.filters import listed
from tests.fakes.vertex.jobs import Numbers, now

_ACTIVE, _PAUSED, _COMPLETED = v1.Schedule.State.ACTIVE, v1.Schedule.State.PAUSED, v1.Schedule.State.COMPLETED
_FIELD = re.compile(r"(\*|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/\d+)?(,(\*|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/\d+)?)*")
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def check_cron(expression: str) -> str:
    """The time zone of a cron expression with an optional `CRON_TZ=` or `TZ=` prefix.

    Raises:
        ServiceError: INVALID_ARGUMENT for a zone or a field that does not exist.
    """
    zone, fields = "UTC", expression.split()
    if fields and re.match(r"(CRON_)?TZ=", fields[0]):
        zone = fields.pop(0).split("=", 1)[1]
        try:
            ZoneInfo(zone)
        except Exception:
            raise invalid(f"Invalid time zone in cron: {zone}.") from None
    if len(fields) != 5:
        raise invalid(f"Invalid cron {expression!r}: expected 5 fields.")
    for field, (low, high) in zip(fields, _RANGES, strict=True):
        numbers = [int(n) for n in re.findall(r"(?<![/\d])\d+", field)]
        if not _FIELD.fullmatch(field) or any(not low <= n <= high for n in numbers):
            raise invalid(f"Invalid cron {expression!r}: field {field!r}.")
    return zone


class ScheduleService:
    """`projects.locations.schedules`."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._number = Numbers(3_000_000_000_000_000_001)
        self.schedules: dict[str, v1.Schedule] = {}
        self._fired: dict[str, str] = {}

    def create_schedule(self, request: v1.CreateScheduleRequest) -> v1.Schedule:
        schedule = request.schedule
        if not schedule.display_name:
            raise invalid("schedule.display_name is required.")
        check_cron(schedule.cron)
        if schedule.max_concurrent_run_count < 1:
            raise invalid("schedule.max_concurrent_run_count must be at least 1.")
        self._server.pipelines.check(schedule.create_pipeline_job_request.pipeline_job)
        schedule.name = f"{request.parent}/schedules/{self._number()}"
        schedule.state, schedule.create_time, schedule.update_time = _ACTIVE, now(), now()
        schedule.next_run_time = self._next(schedule)
        self.schedules[schedule.name] = schedule
        return schedule

    def get_schedule(self, request: v1.GetScheduleRequest) -> v1.Schedule:
        return self._find(request.name)

    def list_schedules(self, request: v1.ListSchedulesRequest) -> v1.ListSchedulesResponse:
        found, token = listed(self.schedules.values(), request)
        return v1.ListSchedulesResponse(schedules=found, next_page_token=token)

    def update_schedule(self, request: v1.UpdateScheduleRequest) -> v1.Schedule:
        schedule = self._find(request.schedule.name)
        if not request.update_mask.paths:
            raise invalid("update_mask is required.")
        for path in request.update_mask.paths:
            if path == "cron":
                check_cron(request.schedule.cron)
            elif path == "create_pipeline_job_request":
                self._server.pipelines.check(request.schedule.create_pipeline_job_request.pipeline_job)
            elif path not in (
                "display_name",
                "end_time",
                "start_time",
                "max_run_count",
                "allow_queueing",
                "max_concurrent_run_count",
            ):
                raise invalid(f"update_mask: {path} cannot be updated.")
        for path in request.update_mask.paths:
            setattr(schedule, path, getattr(request.schedule, path))
        schedule.update_time, schedule.next_run_time = now(), self._next(schedule)
        return schedule

    def pause_schedule(self, request: v1.PauseScheduleRequest) -> None:
        schedule = self._find(request.name)
        if schedule.state != _ACTIVE:
            raise ServiceError("FAILED_PRECONDITION", f"{schedule.name} is not ACTIVE.")
        schedule.state, schedule.last_pause_time = _PAUSED, now()

    def resume_schedule(self, request: v1.ResumeScheduleRequest) -> None:
        schedule = self._find(request.name)
        if schedule.state != _PAUSED:
            raise ServiceError("FAILED_PRECONDITION", f"{schedule.name} is not PAUSED.")
        schedule.state, schedule.last_resume_time, schedule.catch_up = _ACTIVE, now(), request.catch_up

    def delete_schedule(self, request: v1.DeleteScheduleRequest) -> operations_pb2.Operation:
        self._find(request.name)
        del self.schedules[request.name]
        return self._server.operations.done(
            request.name.rpartition("/schedules")[0], None, v1.DeleteOperationMetadata()
        )

    def fire(self, name: str) -> str:
        """Starts the schedule's pipeline as the clock would; returns the name of the pipeline job.

        Raises:
            ServiceError: The schedule is not active, or has as many runs as it may.
        """
        with self._server.lock:
            schedule = next((s for s in self.schedules.values() if name in (s.name, s.display_name)), None)
            if schedule is None:
                raise not_found(name)
            running = [j for j, owner in self._fired.items() if owner == schedule.name and self._running(j)]
            if schedule.state != _ACTIVE or len(running) >= schedule.max_concurrent_run_count:
                raise ServiceError("FAILED_PRECONDITION", f"{schedule.display_name} cannot start a run now.")
            template = schedule.create_pipeline_job_request
            job = v1.PipelineJob()
            v1.PipelineJob.copy_from(job, template.pipeline_job)
            job.schedule_name = schedule.name
            job.display_name = job.display_name or schedule.display_name
            schedule.started_run_count += 1
            pipeline = dict(job.pipeline_spec["pipelineInfo"])["name"]  # and the date, as the service names such runs
            identity = f"{pipeline}-{now():%Y%m%d%H%M%S}-{self._number()}"
            made = self._server.pipelines.create_pipeline_job(
                v1.CreatePipelineJobRequest(
                    parent=template.parent or schedule.name.rpartition("/schedules")[0],
                    pipeline_job=job,
                    pipeline_job_id=template.pipeline_job_id or identity,
                )
            )
            self._fired[made.name] = schedule.name
            schedule.last_scheduled_run_response.run_response = made.name
            if schedule.max_run_count and schedule.started_run_count >= schedule.max_run_count:
                schedule.state = _COMPLETED
            return made.name

    def _running(self, name: str) -> bool:
        job = self._server.pipelines.jobs.get(name)
        return job is not None and not job.end_time

    @staticmethod
    def _next(schedule: v1.Schedule) -> datetime:
        from croniter import croniter

        zone = ZoneInfo(check_cron(schedule.cron))
        fields = schedule.cron.split()[-5:]
        return croniter(" ".join(fields), datetime.now(zone)).get_next(datetime)

    def _find(self, name: str) -> v1.Schedule:
        if name not in self.schedules:
            raise not_found(name)
        return self.schedules[name]
