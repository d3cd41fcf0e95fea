"""Kubeflow Pipelines as a `Service`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from core.errors import UserError
from factory.job import AnyJob
from factory.lineage import Node
from factory.run_folder import Run
from pipelines.findings import Check
from pipelines.kubeflow import artifacts, doctor, logs, retention, schedule, submit
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.runs import find, ours, view
from pipelines.machines import load_machines
from pipelines.record import peek
from pipelines.retention import Candidate
from pipelines.service import Entry, Options, Plan, Say
from pipelines.settings import Settings
from pipelines.views import ENDED, Step, View, follow

_SHOWN = 20


class KubeflowService:
    """The installation that the settings name; a UserError where it is first used if they name none."""

    label = "Kubeflow Pipelines"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def cluster(self) -> Cluster:
        return Cluster(self.settings)

    def reachable(self, tell: Say) -> bool:
        return True

    def prepare(self, job: AnyJob, options: Options, *, ask: bool = True) -> Plan:
        return submit.prepare(self.cluster, job, self.settings, options, ask=ask)

    def submit(self, plan: Plan, tell: Say) -> None:
        identity = submit.submit(self.cluster, plan)
        tell(f"run: {plan.submission.run}")
        tell(f"page: {self.cluster.page(identity)}")

    def folder(self, plan: Plan) -> str | None:
        return None  # its last part is the id that the server gives

    def get(self, run: str) -> View:
        shown = self._view(find(self.cluster, run))
        for step in shown.failed:  # the API has no messages of nodes
            step.error = step.error or logs.reason(self.cluster, shown, step)
        return shown

    def runs(self, job: str = "") -> list[View]:
        return [self._view(run) for run in islice(ours(self.cluster, job), _SHOWN)]

    def _view(self, run: Any) -> View:
        own = self.settings.machines
        priced = {name: row for name, row in load_machines(own).items() if name in own and row.usd_per_hour}
        return view(run, priced)

    def watch(self, run: str, show: Callable[[View], None], tell: Say, interval: float) -> View:
        return follow(lambda: self.get(run), show, interval=interval)

    def logs(self, shown: View, step: Step, *, full: bool) -> list[str]:
        return logs.lines(self.cluster, shown, step, full=full)

    def watch_logs(self, run: str, step: str, *, full: bool, interval: float) -> Iterator[tuple[str, str]]:
        return logs.watch(self.cluster, run, step, full=full, interval=interval)

    def cancel(self, run: str) -> None:
        shown = self._view(find(self.cluster, run))
        if shown.state in ENDED:
            raise UserError(f"run {shown.run}: is {shown.state}; only a run that goes on is cancelled")
        with self.cluster.one_line(f"run {shown.run}"):
            self.cluster.client.terminate_run(shown.identity)

    def retry(self, run: str) -> str:
        shown = self._view(find(self.cluster, run))
        if shown.state not in ("failed", "cancelled"):
            raise UserError(f"run {shown.run}: is {shown.state}; only a failed or cancelled run is started again")
        with self.cluster.one_line(f"run {shown.run}"):
            self.cluster.client._run_api.run_service_retry_run(shown.identity)
        return shown.run

    def page(self, run: str) -> str:
        return self.cluster.page(find(self.cluster, run).run_id)

    def create_schedule(self, name: str, plan: Plan, cron: str, zone: str, *, end: str, runs: int) -> Entry:
        return schedule.create(self.cluster, name, plan, cron, zone, end=end, runs=runs)

    def schedules(self) -> list[Entry]:
        return schedule.listed(self.cluster)

    def schedule(self, name: str) -> Entry:
        return schedule.find(self.cluster, name)

    def update_schedule(self, name: str, plan: Plan | None, *, cron: str, zone: str) -> Entry:
        return schedule.update(self.cluster, name, plan, cron=cron, zone=zone)

    def pause_schedule(self, name: str) -> None:
        schedule.pause(self.cluster, name)

    def resume_schedule(self, name: str, *, catch_up: bool) -> None:
        schedule.resume(self.cluster, name, catch_up=catch_up)

    def delete_schedule(self, name: str) -> None:
        schedule.delete(self.cluster, name)

    def peek(self, run: str, scratch: Path) -> Run:
        return peek(artifacts.facts(self.cluster, self.get(run)), scratch)

    def download(self, run: str, target: Path, tell: Say) -> Run:
        return artifacts.download(self.cluster, self.get(run), target, tell)

    def trace(self, artifact: str) -> Node:
        return artifacts.trace(self.cluster, artifact)

    def candidates(self, days: float) -> list[Candidate]:
        return retention.candidates(self.cluster, days)

    def remove(self, candidate: Candidate) -> None:
        retention.remove(self.cluster, candidate)

    def checks(self) -> Iterator[Check]:
        return doctor.checks(self.settings)
