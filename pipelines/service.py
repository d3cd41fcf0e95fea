"""What commands ask of a service that runs pipelines elsewhere; vertex/ and kubeflow/ answer it, and no command knows
which of them it talks to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from core.errors import UserError
from factory.job import AnyJob
from factory.lineage import Node
from factory.run_folder import Run
from pipelines.costs import Estimate
from pipelines.findings import Check, Finding
from pipelines.retention import Candidate
from pipelines.views import Step, View

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the command line adds to a job.

    `machines` are rows of resources.yaml for training, in the order in which they are tried.
    """

    machines: tuple[str, ...] = ()
    spot: bool | None = None
    steps: tuple[str, ...] = ()
    max_cost: float | None = None
    timeout_hours: float | None = None
    cache: bool = True
    experiment: str = ""
    labels: Mapping[str, str] | None = None
    retraining: bool = False


@dataclass(frozen=True)
class Submission:
    """Everything that is sent, and where its artifacts will be. `platform` is what is special to Kubernetes."""

    run: str
    job: str
    spec: Mapping[str, Any]
    parameters: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    experiment: str = ""
    fail_fast: bool = True
    platform: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pipeline(self) -> str:
        return str(self.spec["pipelineInfo"]["name"])


@dataclass(frozen=True)
class Plan:
    """A submission with what is known about it before it is sent. No estimate: the service's steps have no price."""

    submission: Submission
    estimate: Estimate | None
    findings: tuple[Finding, ...]
    machines: tuple[str, ...]

    @property
    def problems(self) -> list[str]:
        return [finding.text for finding in self.findings if finding.problem]

    @property
    def notes(self) -> list[str]:
        return [finding.text for finding in self.findings if not finding.problem]


@dataclass(frozen=True)
class Entry:
    """A schedule as it is listed."""

    name: str
    job: str
    cron: str
    state: str
    next_run: str
    last_run: str
    started: int
    resource: str


class PreflightError(UserError):
    """Problems found before anything was paid for; each is one line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems[0])
        self.problems = problems


class Service(Protocol):
    """Runs and schedules of one service. Every method raises UserError for what the service refuses or lacks."""

    label: str

    def reachable(self, tell: Say) -> bool:
        """Whether the service can be asked from here; says so if not."""

    def prepare(self, job: AnyJob, options: Options, *, ask: bool = True) -> Plan:
        """Compiles and places a job and looks for what would go wrong; without `ask` nothing is sent."""

    def submit(self, plan: Plan, tell: Say) -> None:
        """Starts a run, and tells its id and page."""

    def folder(self, plan: Plan) -> str | None:
        """Where everything of the run will be; None: only the service knows."""

    def get(self, run: str) -> View:
        """A run by its id or `latest`."""

    def runs(self, job: str = "") -> list[View]:
        """The newest runs of TextDiffusion jobs, newest first."""

    def watch(self, run: str, show: Callable[[View], None], tell: Say, interval: float) -> View:
        """Calls `show` at each look at a run until its end; returns its last state."""

    def logs(self, shown: View, step: Step, *, full: bool) -> list[str]:
        """The log of a step, oldest line first; `full`: also what KFP's executor prints."""

    def watch_logs(self, run: str, step: str, *, full: bool, interval: float) -> Iterator[tuple[str, str]]:
        """(step, line) as lines come, until the run has ended; an empty `step` means all."""

    def cancel(self, run: str) -> None:
        """Asks the service to end a run."""

    def retry(self, run: str) -> str:
        """Starts a failed or cancelled run again from its failed step; the id of the run that goes on."""

    def page(self, run: str) -> str:
        """The address of a run's page."""

    def create_schedule(self, name: str, plan: Plan, cron: str, zone: str, *, end: str, runs: int) -> Entry:
        """Makes a schedule; `end` is an RFC 3339 time or empty, `runs` the most to start or 0."""

    def schedules(self) -> list[Entry]:
        """All schedules."""

    def schedule(self, name: str) -> Entry:
        """The schedule called `name`."""

    def update_schedule(self, name: str, plan: Plan | None, *, cron: str, zone: str) -> Entry:
        """Changes what a schedule runs, its times, or both; what is empty stays."""

    def pause_schedule(self, name: str) -> None:
        """No more runs until it is resumed."""

    def resume_schedule(self, name: str, *, catch_up: bool) -> None:
        """Runs start again; `catch_up` also starts those that were missed."""

    def delete_schedule(self, name: str) -> None:
        """Removes a schedule; the runs it started stay."""

    def peek(self, run: str, scratch: Path) -> Run:
        """A run as a folder with run.json and metrics.json only: enough to show and to compare it."""

    def download(self, run: str, target: Path, tell: Say) -> Run:
        """Copies a run's artifacts here, laid out as a local run."""

    def trace(self, artifact: str) -> Node:
        """What an artifact was made of."""

    def candidates(self, days: float) -> list[Candidate]:
        """Runs and what trainings left, each with why it stays; what is younger than `days` does."""

    def remove(self, candidate: Candidate) -> None:
        """Removes a run with its files, or files of a training."""

    def checks(self) -> Iterator[Check]:
        """What the service has for runs, in the order of mending."""


def deploy(service: Service, job: AnyJob, options: Options, tell: Say) -> Plan:
    """Submits a job if nothing speaks against it.

    Raises:
        PreflightError: something would have gone wrong; nothing was submitted.
    """
    plan = service.prepare(job, options)
    for note in plan.notes:
        tell(f"note: {note}")
    require_sound(plan)
    service.submit(plan, tell)
    return plan


def require_sound(plan: Plan) -> None:
    """Raises PreflightError if a plan has problems."""
    if plan.problems:
        raise PreflightError(plan.problems)


def the_schedule(entries: list[Entry], name: str) -> Entry:
    """The one of `entries` that is called `name`, or whose identity it is.

    Raises:
        UserError: there is none, or the name is not unique.
    """
    matches = [entry for entry in entries if name in (entry.name, entry.resource.rsplit("/", 1)[-1])]
    if len(matches) == 1:
        return matches[0]
    if matches:
        numbers = ", ".join(entry.resource.rsplit("/", 1)[-1] for entry in matches)
        raise UserError(f"schedule {name!r}: {len(matches)} are called so; name one by its number: {numbers}")
    raise UserError(f"schedule {name!r}: there is none; schedules: {', '.join(e.name for e in entries) or 'none'}")
