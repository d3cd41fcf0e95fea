"""schedule: retraining at fixed times."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from core.printable import say
from textdiffusion.cli.output import Json, add_group, answer
from textdiffusion.cli.remote import MachineOption, MaxCost, Overrides, StepOption

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
Zone = Annotated[str, typer.Option("--timezone", help="IANA time zone of --cron.")]
COLUMNS = ("name", "job", "cron", "state", "next_run", "started", "last_run")


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    add_group(app, "schedule", "Retraining at fixed times, on the service that the settings name.", EXAMPLES)


def create(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The training job.")],
    cron: Annotated[str, typer.Option(help="minute hour day month weekday: '0 3 * * 1' is Monday, 3 o'clock.")],
    name: Annotated[str | None, typer.Option(help="Left out: the job's name.")] = None,
    timezone: Zone = "UTC",
    overrides: Overrides = None,
    machine: MachineOption = None,
    step: StepOption = None,
    max_cost: MaxCost = None,
    runs: Annotated[int, typer.Option(min=0, help="Most runs to start; 0: no limit.")] = 0,
    end: Annotated[str, typer.Option(help="RFC 3339 time after which none is started.")] = "",
    as_json: Json = False,
) -> None:
    """Retrain a job at fixed times; a run without new data trains nothing, a worse model is not promoted."""
    from pipelines.cron import with_zone

    with_zone(cron, timezone)  # before anything is compiled
    service = _service()
    plan = _plan(service, job, overrides, machine, step, max_cost)
    entry = service.create_schedule(name or job, plan, cron, timezone, end=end, runs=runs)
    print_entries([entry], as_json)
    _say(plan)


def list_all(as_json: Json = False) -> None:
    """All schedules of the project and region, or of the namespace."""
    print_entries(_service().schedules(), as_json)


def update(
    name: Name,
    cron: Annotated[str, typer.Option(help="New times.")] = "",
    timezone: Annotated[str, typer.Option("--timezone", help="New time zone; left out: it stays.")] = "",
    job: Annotated[str | None, typer.Option(metavar="JOB", help="Compile this job anew for the coming runs.")] = None,
    overrides: Overrides = None,
    machine: MachineOption = None,
    step: StepOption = None,
    max_cost: MaxCost = None,
    as_json: Json = False,
) -> None:
    """Change a schedule in place: its times, or with --job, --set and the like what it runs.

    What it runs is then compiled anew from the job and this command's options alone: repeat the earlier ones.
    """
    service = _service()
    entry = service.schedule(name)
    plan = None
    if job or overrides or machine or step or max_cost is not None:
        plan = _plan(service, job or entry.job, overrides, machine, step, max_cost)
    print_entries([service.update_schedule(name, plan, cron=cron, zone=timezone)], as_json)
    if plan:
        _say(plan)


def pause(name: Name) -> None:
    """Start no more runs until `resume`."""
    _service().pause_schedule(name)
    say(f"{name}: paused")


def resume(
    name: Name,
    catch_up: Annotated[bool, typer.Option("--catch-up", help="Also start the runs that were missed.")] = False,
) -> None:
    """Start runs again."""
    _service().resume_schedule(name, catch_up=catch_up)
    say(f"{name}: active")


def delete(name: Name) -> None:
    """Remove a schedule; the runs it started stay."""
    _service().delete_schedule(name)
    say(f"{name}: deleted")


def print_entries(entries: list[Any], as_json: bool) -> None:
    """Schedules as a table or as JSON."""
    answer([vars(entry) for entry in entries], COLUMNS, as_json, "no schedules")


EXAMPLES: dict[Callable[..., Any], tuple[str, ...]] = {
    create: ("schedule create mnist-training --cron '0 3 * * 1' --timezone Europe/Berlin --max-cost 5",),
    list_all: ("schedule list", "schedule list --json"),
    update: ("schedule update mnist-training --cron '0 4 * * 1'",),
    pause: ("schedule pause mnist-training",),
    resume: ("schedule resume mnist-training --catch-up",),
    delete: ("schedule delete mnist-training",),
}


def _service() -> Any:
    from pipelines.settings import load_settings
    from textdiffusion.cli.where import service_of

    return service_of(load_settings())


def _plan(
    service: Any,
    name: str,
    overrides: list[str] | None,
    machine: str | None,
    step: list[str] | None,
    max_cost: float | None,
) -> Any:
    from pipelines.jobs import load_job
    from pipelines.service import Options, require_sound
    from pipelines.settings import load_settings

    job = load_job(name, overrides or (), [load_settings().set])
    machines = tuple(part for part in (machine or "").split(",") if part)
    options = Options(machines=machines, steps=tuple(step or ()), max_cost=max_cost, retraining=True)
    plan = service.prepare(job, options)
    require_sound(plan)
    return plan


def _say(plan: Any) -> None:
    """What is worth knowing about the runs of a schedule; on stderr, apart from the table or JSON."""
    several = ["the clock starts runs on the first machine; monitor --follow or retry go on with the next"]
    for note in [*plan.notes, *(several if len(plan.machines) > 1 else [])]:
        say(f"note: {note}", to=sys.stderr)
    if plan.estimate:
        say(f"each run: {plan.estimate.line()}", to=sys.stderr)
