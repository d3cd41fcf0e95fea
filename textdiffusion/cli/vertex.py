"""deploy, monitor, cancel, retry: runs on Vertex AI Pipelines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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
    experiment: Annotated[str, typer.Option(help="Vertex AI experiment to put the run into.")] = "",
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and estimate only.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="With --dry-run: without asking any service, so without credentials.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Watch until the end; the exit code is the run's.")] = False,
    interval: Interval = 10.0,
    as_json: Json = False,
) -> None:
    """Compile a job, check everything that can be checked, and submit it to Vertex AI Pipelines."""
    from core.errors import UserError
    from pipelines.jobs import load_job
    from pipelines.settings import load_settings
    from pipelines.vertex import deploy as deploying
    from pipelines.vertex.client import Project, Vertex

    if offline and not dry_run:
        raise UserError("--offline goes with --dry-run: a run is submitted to a service")
    settings = load_settings()
    vertex = Vertex(Project.of(settings))
    job = load_job(name, overrides or (), [settings.set], search=search)
    options = deploying.Options(
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
            offline = offline or _without_credentials(vertex, tell)
            plan = deploying.prepare(vertex, job, settings, options, ask=not offline)
            if plan.problems:
                raise deploying.PreflightError(plan.problems)
            for note in plan.notes:
                tell(f"note: {note}")
            tell(f"estimate: {plan.estimate.line()}")
        else:
            plan = deploying.deploy(vertex, job, settings, options, tell)
    if as_json:
        print_json(
            {
                "run": None if dry_run else plan.submission.run,
                "pipeline": plan.submission.pipeline,
                "folder": vertex.project.run_folder(plan.submission.pipeline, plan.submission.run),
                "usd": round(plan.estimate.usd, 2),
                "steps": [vars(item) for item in plan.estimate.steps],
                "notes": plan.notes,
            }
        )
    if dry_run:
        return
    if follow:
        raise typer.Exit(_follow(vertex, plan.submission.run, settings, interval))
    tell(f"watch: textdiffusion monitor {plan.submission.run} --follow")


def _without_credentials(vertex: Any, tell: Callable[[str], None]) -> bool:
    """Whether there are no credentials here to ask a service with; says so."""
    from pipelines.vertex.client import NoCredentialsError

    try:
        _ = vertex.credentials
    except NoCredentialsError:
        tell("note: no credentials on this machine: what only the services know was not checked")
        return True
    return False


@contextmanager
def _problems_in_lines() -> Iterator[None]:
    """All that a preflight refuses is said, a line each."""
    from pipelines.vertex.deploy import PreflightError

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
    from pipelines.machines import load_machines
    from pipelines.settings import load_settings
    from pipelines.vertex.client import Project, Vertex
    from pipelines.vertex.logs import end_of, jobs_of, log_lines, log_text, watch_logs, without_executor
    from pipelines.vertex.monitor import render, view
    from pipelines.vertex.submit import get_run

    settings = load_settings()
    vertex = Vertex(Project.of(settings))
    message = get_run(vertex, name)
    shown = view(message, load_machines(settings.machines))
    if logs or full or step:
        if follow:
            before = step
            for part, entry in watch_logs(vertex, shown.run, step or "", full=full, interval=interval):
                if part != before:
                    say(f"--- {part}")
                before = part
                say(log_text(entry), lines=True)
            raise typer.Exit(_ended(vertex, shown.run))
        chosen = [shown.step(step)] if step else [s for s in shown.steps if s.jobs] if full else [end_of(shown)]
        for one in chosen:
            if len(chosen) > 1:
                say(f"--- {one.name}")
            entries = log_lines(vertex, jobs_of(vertex, message, one))
            for entry in entries if full else without_executor(entries)[-100:]:
                say(log_text(entry), lines=True)
        return
    if follow:
        raise typer.Exit(_follow(vertex, shown.run, settings, interval))
    if as_json:
        print_json(as_facts(shown))
        return
    _console().print(render(shown))


def cancel(name: CloudRun) -> None:
    """End a run; what its finished steps made stays."""
    from pipelines.settings import load_settings
    from pipelines.vertex import submit
    from pipelines.vertex.client import Project, Vertex

    submit.cancel(Vertex(Project.of(load_settings())), name)
    say(f"{name}: is being cancelled")


def retry(
    name: CloudRun,
    follow: Annotated[bool, typer.Option("--follow", help="Watch until the end; the exit code is the run's.")] = False,
    interval: Interval = 10.0,
) -> None:
    """Start a failed or cancelled run again from its failed step; finished steps come from the cache."""
    from pipelines.settings import load_settings
    from pipelines.vertex import retries
    from pipelines.vertex.client import Project, Vertex, console_url

    settings = load_settings()
    vertex = Vertex(Project.of(settings))
    submission = retries.retry(vertex, name, settings)
    say(f"run: {submission.run}")
    say(f"console: {console_url(vertex.project, submission.run)}")
    if follow:
        raise typer.Exit(_follow(vertex, submission.run, settings, interval))


def as_facts(shown: Any) -> dict[str, Any]:
    """A view as JSON."""
    steps = [
        {"name": s.name, "state": s.state, "seconds": round(s.seconds, 1), "usd": s.usd, "error": s.error or None,
         "artifacts": {name: a["uri"] for name, a in s.artifacts.items()}}
        for s in shown.steps
    ]  # fmt: skip
    return {"id": shown.run, "job": shown.job, "status": shown.state, "seconds": round(shown.seconds, 1),
            "usd": round(shown.usd, 4), "error": shown.error or None, "steps": steps}  # fmt: skip


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


def _follow(vertex: Any, run: str, settings: Any, interval: float) -> int:
    from rich.live import Live

    from pipelines.vertex import retries
    from pipelines.vertex.monitor import render

    console = _console()
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            shown = retries.watch(
                vertex, run, lambda now: live.update(render(now), refresh=True), say, settings, interval=interval
            )
    else:
        seen: dict[str, str] = {}

        def show(now: Any) -> None:
            for step in now.steps:
                if seen.get(step.name) != step.state and step.state not in ("pending", "skipped"):
                    seen[step.name] = step.state
                    say(f"{step.name}  {step.state}")

        shown = retries.watch(vertex, run, show, say, settings, interval=interval)
        console.print(render(shown))
    return retries.end(shown)


def _ended(vertex: Any, run: str) -> int:
    from pipelines.vertex.monitor import view
    from pipelines.vertex.retries import end
    from pipelines.vertex.submit import get_run

    return end(view(get_run(vertex, run), {}))


def _console() -> Any:
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False)
