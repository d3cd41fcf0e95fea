"""deploy, monitor, cancel, retry: runs on the service that the settings name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import typer

from core.printable import say
from textdiffusion.cli.jobs import SearchOption
from textdiffusion.cli.output import Json, examples, print_json

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: train.batch_size=64.")
]
CloudRun = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or latest.")]
MachineOption = Annotated[
    str | None,
    typer.Option("--machine", metavar="ROW[,ROW]", help="Rows of resources.yaml for training, in order of preference."),
]
StepOption = Annotated[
    list[str] | None, typer.Option("--step", metavar="STEP.OPTION=VALUE", help="train.retries=2, sample.cache=false.")
]
Interval = Annotated[float, typer.Option(min=0.05, max=600, metavar="SECONDS", help="Between two looks at the run.")]
MaxCost = Annotated[float | None, typer.Option(min=0, metavar="USD", help="Refuse, or end, what would cost more.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command(
        "deploy",
        epilog=examples("deploy mnist-training --dry-run", "deploy mnist-training --spot --max-cost 5 --follow"),
    )(deploy)
    app.command("monitor", epilog=examples("monitor latest --follow", "monitor latest --logs --step train"))(monitor)
    app.command("cancel", epilog=examples("cancel latest"))(cancel)
    app.command("retry", epilog=examples("retry latest --follow"))(retry)


def deploy(
    name: Annotated[str, typer.Argument(metavar="JOB", help="A predefined job, or the path of a .yaml file.")],
    overrides: Overrides = None,
    search: SearchOption = False,
    machine: MachineOption = None,
    spot: Annotated[bool | None, typer.Option("--spot/--no-spot", help="Train at spot prices, with restarts.")] = None,
    step: StepOption = None,
    max_cost: MaxCost = None,
    timeout_hours: Annotated[float | None, typer.Option(min=0.02, max=168, help="Longest training.")] = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Take unchanged steps from the cache.")] = True,
    experiment: Annotated[str, typer.Option(help="Experiment to put the run into.")] = "",
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and estimate only.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="With --dry-run: without asking any service, so without credentials.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Watch until the end; the exit code is the run's.")] = False,
    interval: Interval = 10.0,
    as_json: Json = False,
) -> None:
    """Compile a job, check everything that can be checked, and submit it to the service that the settings name."""
    from core.errors import UserError
    from pipelines.jobs import load_job
    from pipelines.service import Options, require_sound
    from pipelines.service import deploy as submit
    from pipelines.settings import load_settings
    from textdiffusion.cli.where import service_of

    if offline and not dry_run:
        raise UserError("--offline goes with --dry-run: a run is submitted to a service")
    settings = load_settings()
    service = service_of(settings)
    job = load_job(name, overrides or (), [settings.set], search=search)
    options = Options(
        machines=tuple(part for part in (machine or "").split(",") if part),
        spot=spot,
        steps=tuple(step or ()),
        max_cost=max_cost,
        timeout_hours=timeout_hours,
        cache=cache,
        experiment=experiment,
        labels=pairs(label or []),
    )
    tell = partial(say, to=sys.stderr) if as_json else say
    with _problems_in_lines():
        if dry_run:
            plan = service.prepare(job, options, ask=not offline and service.reachable(tell))
            require_sound(plan)
            for note in plan.notes:
                tell(f"note: {note}")
            tell(f"estimate: {plan.estimate.line()}" if plan.estimate else "estimate: none, steps have no price")
        else:
            plan = submit(service, job, options, tell)
    if as_json:
        print_json({"run": None if dry_run else plan.submission.run, "folder": service.folder(plan), **_planned(plan)})
    if dry_run:
        return
    if follow:
        raise typer.Exit(_follow(service, plan.submission.run, interval))
    tell(f"watch: textdiffusion monitor {plan.submission.run} --follow")


def _planned(plan: Any) -> dict[str, Any]:
    return {
        "pipeline": plan.submission.pipeline,
        "usd": round(plan.estimate.usd, 2) if plan.estimate else None,
        "steps": [vars(item) for item in plan.estimate.steps] if plan.estimate else [],
        "notes": plan.notes,
    }


@contextmanager
def _problems_in_lines() -> Iterator[None]:
    """All that a preflight refuses is said, a line each."""
    from pipelines.service import PreflightError

    try:
        yield
    except PreflightError as refused:
        for problem in refused.problems[:-1]:
            say(f"error: {problem}", to=sys.stderr)
        raise type(refused)(refused.problems[-1:]) from None


def monitor(
    name: CloudRun = "latest",
    logs: Annotated[
        bool, typer.Option("--logs", help="The end of the log of the step that matters now; with --follow: of all.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="The whole log of every step.")] = False,
    step: Annotated[
        str | None, typer.Option("--step", metavar="STEP", help="With --logs or --full: this step.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Until the end; the exit code is the run's.")] = False,
    interval: Interval = 10.0,
    as_json: Json = False,
) -> None:
    """A run's steps with state, time, cost and errors; the log of a step; until the end with --follow."""
    from pipelines.settings import load_settings
    from pipelines.views import end, end_of, render
    from textdiffusion.cli.where import service_of

    service = service_of(load_settings())
    shown = service.get(name)
    if logs or full or step:
        if follow:
            before = step
            for part, line in service.watch_logs(shown.run, step or "", full=full, interval=interval):
                if part != before:
                    say(f"--- {part}")
                before = part
                say(line, lines=True)
            raise typer.Exit(end(service.get(shown.run)))
        chosen = [shown.step(step)] if step else [s for s in shown.steps if s.jobs] if full else [end_of(shown)]
        for one in chosen:
            if len(chosen) > 1:
                say(f"--- {one.name}")
            for line in service.logs(shown, one, full=full):
                say(line, lines=True)
        return
    if follow:
        raise typer.Exit(_follow(service, shown.run, interval))
    if as_json:
        print_json(as_facts(shown))
        return
    _console().print(render(shown))


def cancel(name: CloudRun) -> None:
    """End a run; what its finished steps made stays."""
    from pipelines.settings import load_settings
    from textdiffusion.cli.where import service_of

    service_of(load_settings()).cancel(name)
    say(f"{name}: is being cancelled")


def retry(
    name: CloudRun,
    follow: Annotated[bool, typer.Option("--follow", help="Watch until the end; the exit code is the run's.")] = False,
    interval: Interval = 10.0,
) -> None:
    """Start a failed or cancelled run again from its failed step; what finished is not done again."""
    from pipelines.settings import load_settings
    from textdiffusion.cli.where import service_of

    service = service_of(load_settings())
    run = service.retry(name)
    say(f"run: {run}")
    say(f"console: {service.page(run)}")
    if follow:
        raise typer.Exit(_follow(service, run, interval))


def as_facts(shown: Any) -> dict[str, Any]:
    """A view as JSON."""
    steps = [
        {"name": s.name, "state": s.state, "seconds": round(s.seconds, 1), "usd": s.usd, "error": s.error or None,
         "artifacts": {name: a["uri"] for name, a in s.artifacts.items()}}
        for s in shown.steps
    ]  # fmt: skip
    return {"id": shown.run, "job": shown.job, "status": shown.state, "seconds": round(shown.seconds, 1),
            "error": shown.error or None,
            "usd": None if shown.usd is None else round(shown.usd, 4), "steps": steps}  # fmt: skip


def pairs(texts: list[str]) -> dict[str, str]:
    """`KEY=VALUE` texts as a mapping."""
    from core.errors import UserError

    labels = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"--label {text!r}: expected KEY=VALUE")
        labels[key] = value
    return labels


def _follow(service: Any, run: str, interval: float) -> int:
    from rich.live import Live

    from pipelines.views import end, render

    console = _console()
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            shown = service.watch(run, lambda now: live.update(render(now), refresh=True), say, interval)
    else:
        seen: dict[str, str] = {}

        def show(now: Any) -> None:
            for step in now.steps:
                if seen.get(step.name) != step.state and step.state not in ("pending", "skipped"):
                    seen[step.name] = step.state
                    say(f"{step.name}  {step.state}")

        shown = service.watch(run, show, say, interval)
        console.print(render(shown))
    return end(shown)


def _console() -> Any:
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False)
