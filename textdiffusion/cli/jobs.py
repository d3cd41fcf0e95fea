"""jobs, compile and run."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import typer

from core.printable import say
from textdiffusion.cli.output import Json, answer, cell, changes, complete_jobs, examples, print_json, print_metrics

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: train.batch_size=64.")
]
SearchOption = Annotated[
    bool, typer.Option("--search", help="Search the settings that the job's section `search` names, then train.")
]
JobName = Annotated[
    str,
    typer.Argument(metavar="JOB", help="A predefined job, or the path of a .yaml file.", autocompletion=complete_jobs),
]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("jobs", epilog=examples("jobs", "jobs --json"))(jobs)
    app.command("compile", epilog=examples("compile mnist-small", "compile all --json"))(compile_jobs)
    app.command(
        "run",
        epilog=examples(
            "run mnist-small",
            "run mnist-small --set train.examples=20000 --set sample.steps=8",
            "run my-job.yaml --runner docker",
            "run mnist-small --resume",
            "run --resume mnist-small-20261124-163819-e460",
            "run mnist-small --search",
            "run mnist-small --only sample --from latest --debug",
            "run mnist-training --runner vertex",
        ),
    )(run)


def jobs(as_json: Json = False) -> None:
    """The predefined jobs: what they do, on which machine, and what their training alone costs in the cloud."""
    from pipelines.jobs import job_names, load_job
    from pipelines.machines import load_machines
    from pipelines.settings import load_settings

    machines = load_machines(load_settings().machines)
    rows = []
    for name in job_names():
        job = load_job(name)
        budget = getattr(job, "train", None)
        trainings = [one for one in (getattr(job, "autoregressive", None), budget) if one is not None]
        minutes = sum(one.minutes or 0 for one in trainings)
        price = machines[job.resources.train].price()
        rows.append(
            {
                "job": name,
                "modality": job.modality,
                "kind": job.kind,
                "data": job.data.source,
                "machine": job.resources.train if job.kind == "training" else job.resources.sample,
                "training": f"{minutes:g} min" if minutes else (f"{budget.examples:,} examples" if budget else None),
                "training_usd": round(minutes / 60 * price, 2) if minutes and price else None,
                "description": job.description,
            }
        )
    columns = ("job", "modality", "kind", "data", "machine", "training", "training_usd", "description")
    answer(rows, columns, as_json, "no jobs in pipelines/configs")


def compile_jobs(
    name: Annotated[str, typer.Argument(metavar="[JOB|all]", help="A job, the path of a .yaml file, or all.")] = "all",
    overrides: Overrides = None,
    search: SearchOption = False,
    as_json: Json = False,
) -> None:
    """Compile pipelines to build/pipelines/<job>.yaml (local, Kubeflow) and <job>.vertex.yaml, and check them."""
    from pipelines.compile import compile_to, image_name
    from pipelines.custom_job import options_of
    from pipelines.jobs import job_names, load_job
    from pipelines.machines import load_machines
    from pipelines.settings import load_settings

    settings = load_settings()
    image, machines = image_name(settings.image), load_machines(settings.machines)
    written = []
    for job_name in job_names() if name == "all" else [name]:
        job = load_job(job_name, overrides or (), [settings.set], search=search)
        paths = compile_to(job, image=image, machines=machines, options=options_of(settings, job))
        written += [{"job": job.job, "file": str(path), "bytes": path.stat().st_size, "image": image} for path in paths]
    answer(written, ("job", "file", "bytes", "image"), as_json, "no jobs in pipelines/configs")


def run(
    name: JobName = "",
    run_name: Annotated[str, typer.Argument(metavar="[RUN]", help="With --resume: the run to go on with.")] = "",
    runner: Annotated[
        Literal["local", "docker", "vertex", "kubeflow"], typer.Option(help="Where the pipeline is executed.")
    ] = "local",
    overrides: Overrides = None,
    search: SearchOption = False,
    only: Annotated[str | None, typer.Option(metavar="STEP", help="Run one step again, in this process.")] = None,
    origin: Annotated[
        str | None, typer.Option("--from", metavar="RUN", help="With --only: the run whose artifacts it gets.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished run: RUN, or the job's newest that began a step.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="With --only: under pdb.")] = False,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Serve unchanged steps from cache.")] = True,
    as_json: Json = False,
) -> None:
    """Run a job's pipeline and print its metrics and the path of its report."""
    if name and runner in ("local", "docker") and not (only or as_json):
        say(f"{name}: compiling the pipeline")  # before imports that take seconds, on a busy machine a minute
    from core.errors import UserError
    from pipelines.jobs import load_job
    from pipelines.settings import load_settings

    settings = load_settings()
    if not name:
        raise UserError("which job? textdiffusion run JOB (`textdiffusion jobs` lists them), or run --resume RUN")
    if run_name and not resume:
        raise UserError(f"{run_name}: one job at a time; to go on with a run: textdiffusion run --resume {run_name}")
    if (only is None) != (origin is None):
        raise UserError("--only STEP and --from RUN go together")
    if debug and only is None:
        raise UserError("--debug works on one step: add --only STEP --from RUN")
    if resume and (only or overrides or search):
        raise UserError("--resume goes on with a run as it was started: leave out --set, --search and --only")
    if search and only:
        raise UserError("--search is for the whole pipeline: leave out --only")
    if runner in ("vertex", "kubeflow"):
        if only or resume or debug:
            raise UserError(f"--only, --resume and --debug are for runs on this machine, not for {runner}")
        job = load_job(name, overrides or (), [settings.set], search=search)
        _run_remote(job, runner, settings, cache, as_json)
        return
    _run_here(name, run_name, runner, overrides or [], search, only, origin, resume, debug, cache, as_json, settings)


def _run_remote(job: Any, runner: str, settings: Any, cache: bool, as_json: bool) -> None:
    """Submits to Vertex or Kubeflow, and says where to watch."""
    from pipelines.service import Options, deploy
    from textdiffusion.cli.where import service_of

    service = service_of(settings, runner)
    plan = deploy(service, job, Options(cache=cache), (lambda _: None) if as_json else say)
    run, estimate = plan.submission.run, plan.estimate
    if as_json:
        usd = round(estimate.usd, 2) if estimate else None
        print_json({"run": run, "pipeline": plan.submission.pipeline, "usd": usd, "page": service.page(run)})
    else:
        say(f"watch: textdiffusion monitor {run} --follow")


def _run_here(
    name: str,
    run_name: str,
    runner: str,
    overrides: list[str],
    search: bool,
    only: str | None,
    origin: str | None,
    resume: bool,
    debug: bool,
    cache: bool,
    as_json: bool,
    settings: Any,
) -> None:
    from rich.console import Console

    from local.runner import run_job
    from local.watcher import StepError
    from pipelines.jobs import load_job

    console = Console(file=sys.stderr if as_json else sys.stdout)
    place = _place(settings, "docker" if runner == "docker" else "subprocess", cache)
    again = f"textdiffusion run {name}{' --runner docker' if runner == 'docker' else ''} --resume {run_name}".rstrip()
    try:
        if only is not None:
            from local.single import run_step

            again = ""
            job_name = name if not name.endswith((".yaml", ".yml")) else None
            finished = run_step(only, str(origin), overrides, place, job=job_name, debug=debug)
        else:
            if resume:
                unfinished, job = _unfinished(name, run_name, place.runs.absolute(), settings)
            else:
                unfinished, job = None, load_job(name, overrides, [settings.set], search=search)
            finished = run_job(job, place, console, resume=unfinished)
    except StepError as error:
        say(f"error: step {error.step} failed: {error}", to=sys.stderr)
        say(f"  look at {_near(error.log)}", to=sys.stderr)
        if again:
            say(f"  once mended, go on from there: {again}", to=sys.stderr)
        raise typer.Exit(2 if error.user_error else 1) from None
    except KeyboardInterrupt:
        if again:
            say(f"\ninterrupted; go on with: {again}", to=sys.stderr, lines=True)
        raise typer.Exit(130) from None
    if settings.track:
        from local.tracking import tell_all

        tell_all(finished, settings.track, place.registry_uri())
    _print_result(finished, as_json)


def _place(settings: Any, runner: str, cache: bool) -> Any:
    from pathlib import Path

    from local.containers import Limits
    from local.runner import LocalPlace

    return LocalPlace(
        Path(settings.runs),
        settings.registry,
        runner=runner,
        image=settings.image,
        machines=settings.machines,
        cache=cache,
        limits=Limits(settings.container_memory, settings.container_processes),
        pass_variables=settings.pass_variables,
    )


def _unfinished(name: str, run_name: str, runs: Any, settings: Any) -> tuple[Any, Any]:
    """The run to go on with, and its job as it was started; `name` alone is a job, or else a run."""
    from pathlib import Path

    from core.errors import UserError
    from factory.job import parse_job
    from factory.run_folder import unfinished_run
    from pipelines.jobs import absolute, job_path, load_job

    job = None
    try:
        job_path(name)
    except UserError:
        if run_name or name.endswith((".yaml", ".yml")):
            raise
        run_name = name
    else:
        job = load_job(name, (), [settings.set])
    run = unfinished_run(runs, job.job if job is not None else None, run_name)
    began = parse_job(run.facts["config"], f"{run.id}/run.json")
    if job is not None:
        searched = getattr(began, "search", None) is not None
        now = load_job(name, (), [settings.set], search=searched) if searched else job
        _say_edits(name, run.id, began, absolute(now, Path.cwd()))
    return run, began


def _say_edits(name: str, run: str, began: Any, now: Any) -> None:
    """Says in which settings the job's file differs from the run that goes on, and what to do to run it as it is."""
    edits = changes(began.model_dump(mode="json"), now.model_dump(mode="json"))
    if not edits:
        return
    shown = ", ".join(f"{key} {cell(old) or 'null'} -> {cell(new) or 'null'}" for key, old, new in edits[:5])
    more = f" and {len(edits) - 5} more" if len(edits) > 5 else ""
    say(f"note: {name} differs from what {run} began with ({shown}{more}); --resume goes on as it began", to=sys.stderr)
    say(f"  to run the job as it is now: textdiffusion run {name} (finished steps come from the cache)", to=sys.stderr)


def _print_result(run: Any, as_json: bool) -> None:
    if as_json:
        print_json({**run.facts, "folder": str(run.folder), "metrics": run.metrics()})
        return
    metrics = run.metrics()
    if metrics:
        print_metrics(metrics, everything=False)
    gate = run.facts.get("gate")
    if gate:
        from core.evaluation import Verdict

        verdict = Verdict.model_validate(gate)
        say(f"gate: {verdict.outcome}: {verdict.explanation}")
    report = run.folder / "report.html"
    say(f"{'report' if report.exists() else 'run'}: {_near(report if report.exists() else run.folder)}")


def _near(path: Any) -> str:
    """A path as a person would type it from here."""
    from pathlib import Path

    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)
