"""Vertex AI Pipelines as a `Service`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from factory.job import AnyJob
from factory.lineage import Node
from factory.run_folder import Run
from pipelines.findings import Check
from pipelines.machines import load_machines
from pipelines.record import peek
from pipelines.retention import Candidate
from pipelines.service import Entry, Options, Plan, Say
from pipelines.settings import Settings
from pipelines.vertex import deploy, doctor, lineage, logs, retention, retries, runs, schedule, submit
from pipelines.vertex.client import NoCredentialsError, Project, Vertex, console_url
from pipelines.vertex.monitor import view
from pipelines.views import Step, View

_LINES = 100  # of a log, where not all is wanted


class VertexService:
    """The project that the settings name; a UserError where it is first used if they name none."""

    label = "Vertex AI Pipelines"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def vertex(self) -> Vertex:
        return Vertex(Project.of(self.settings))

    def reachable(self, tell: Say) -> bool:
        try:
            _ = self.vertex.credentials
        except NoCredentialsError:
            tell("note: no credentials on this machine: what only the services know was not checked")
            return False
        return True

    def prepare(self, job: AnyJob, options: Options, *, ask: bool = True) -> Plan:
        return deploy.prepare(self.vertex, job, self.settings, options, ask=ask)

    def submit(self, plan: Plan, tell: Say) -> None:
        deploy.start(self.vertex, plan, self.settings, tell)

    def folder(self, plan: Plan) -> str | None:
        return self.vertex.project.run_folder(plan.submission.pipeline, plan.submission.run)

    def get(self, run: str) -> View:
        return self._view(submit.get_run(self.vertex, run))

    def runs(self, job: str = "") -> list[View]:
        return [self._view(message) for message in submit.list_runs(self.vertex, job=job)]

    def _view(self, message: Any) -> View:
        return view(message, load_machines(self.settings.machines))

    def watch(self, run: str, show: Callable[[View], None], tell: Say, interval: float) -> View:
        return retries.watch(self.vertex, run, show, tell, self.settings, interval=interval)

    def logs(self, shown: View, step: Step, *, full: bool) -> list[str]:
        jobs = logs.jobs_of(self.vertex, submit.get_run(self.vertex, shown.run), step)
        entries = logs.log_lines(self.vertex, jobs)
        return [logs.log_text(entry) for entry in (entries if full else logs.without_executor(entries)[-_LINES:])]

    def watch_logs(self, run: str, step: str, *, full: bool, interval: float) -> Iterator[tuple[str, str]]:
        for name, entry in logs.watch_logs(self.vertex, run, step, full=full, interval=interval):
            yield name, logs.log_text(entry)

    def cancel(self, run: str) -> None:
        submit.cancel(self.vertex, run)

    def retry(self, run: str) -> str:
        return retries.retry(self.vertex, run, self.settings).run

    def page(self, run: str) -> str:
        return console_url(self.vertex.project, run)

    def create_schedule(self, name: str, plan: Plan, cron: str, zone: str, *, end: str, runs: int) -> Entry:
        return schedule.create(self.vertex, name, plan.submission, cron, zone, end=end, runs=runs)

    def schedules(self) -> list[Entry]:
        return schedule.listed(self.vertex)

    def schedule(self, name: str) -> Entry:
        return schedule.find(self.vertex, name)

    def update_schedule(self, name: str, plan: Plan | None, *, cron: str, zone: str) -> Entry:
        changed = plan.submission if plan else None
        return schedule.update(self.vertex, name, submission=changed, cron=cron, zone=zone)

    def pause_schedule(self, name: str) -> None:
        schedule.pause(self.vertex, name)

    def resume_schedule(self, name: str, *, catch_up: bool) -> None:
        schedule.resume(self.vertex, name, catch_up=catch_up)

    def delete_schedule(self, name: str) -> None:
        schedule.delete(self.vertex, name)

    def peek(self, run: str, scratch: Path) -> Run:
        return peek(runs.facts(self.vertex, run), scratch)

    def download(self, run: str, target: Path, tell: Say) -> Run:
        return runs.download(self.vertex, run, target, tell)

    def trace(self, artifact: str) -> Node:
        return lineage.trace(self.vertex, artifact, deploy.remote_registry(self.settings))

    def candidates(self, days: float) -> list[Candidate]:
        return retention.candidates(self.vertex, deploy.remote_registry(self.settings), days)

    def remove(self, candidate: Candidate) -> None:
        retention.remove(self.vertex, candidate)

    def checks(self) -> Iterator[Check]:
        return doctor.checks(self.settings)
