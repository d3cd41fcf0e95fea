"""Runs a job on this machine: the compiled pipeline through `kfp.local`, into a run folder, served from cache.

runs/<pipeline>/<run id>/   what a run leaves behind (see factory/run_folder.py)
runs/index.html             the gallery of all of them
runs/.store/                the artifacts as KFP lays them out; run folders hold copies of them (`place_tree`)
runs/.cache/                which step with which inputs made which artifacts, verified by hash (see local/cache.py)
runs/.work/                 checkpoints of trainings, by what is trained
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from core import storage
from core.config import config_hash
from core.errors import UserError
from core.evaluation import VERDICT, Verdict
from core.records import Search, read
from core.storage import scratches
from core.storage.folders import sweep
from core.storage.locks import Holder
from factory.job import AnyJob
from factory.many import DRAW
from factory.run_folder import STORE, Run, find_run, new_run, pending
from factory.steps import STEPS
from local import gallery
from local.containers import Limits, docker_runner, mounted_folders
from local.environment import container_environment, step_environment
from local.kfp_seam import observed, observed_docker
from local.live import live_report
from local.processes import StepProcesses
from local.progress import Display
from local.threads import choose
from local.version import code_version
from local.watcher import Watcher
from pipelines import compile as compiler
from pipelines.checks import check_spec, read_spec, tasks
from pipelines.jobs import absolute, parameters
from pipelines.machines import load_machines

ROOT = compiler.ROOT
TRIAL = "trial"


@dataclass(frozen=True)
class LocalPlace:
    """Where local runs live and how they are executed.

    Args:
        runs: folder of runs, their store, cache and checkpoints.
        registry: model registry, a folder or gs:// prefix.
        runner: subprocess or docker.
        image: image repository, or full image with tag.
        machines: the user's own rows of resources.yaml.
        cache: whether steps may be served from cache.
        limits: of the containers of `--runner docker`.
        pass_variables: names of variables that steps get besides those of `local.environment`.
    """

    runs: Path
    registry: str
    runner: str = "subprocess"
    image: str = "textdiffusion"
    machines: Mapping[str, Any] | None = None
    cache: bool = True
    limits: Limits = field(default_factory=Limits)
    pass_variables: tuple[str, ...] = ()

    def registry_uri(self) -> str:
        """The registry, absolute."""
        return self.registry if storage.is_remote(self.registry) else str(Path(self.registry).absolute())


def run_job(job: AnyJob, place: LocalPlace, console: Console, *, resume: Run | None = None) -> Run:
    """Executes the pipeline of `job`; returns the finished run.

    Args:
        job: what to run.
        place: where.
        console: gets the progress.
        resume: an unfinished run of the job to go on with, instead of a new one.

    Raises:
        StepError: a step failed. What was finished before it is in the cache.
        KeyboardInterrupt: the run was interrupted and can be resumed.
    """
    began = time.monotonic()
    console.file = console.file  # stdout as it is now: it goes to a log while kfp.local runs
    job = absolute(job, Path.cwd())
    image = compiler.image_name(place.image, to_run=place.runner == "docker")
    text = compiler.compile_job(job, image=image, machines=load_machines(place.machines))
    spec = read_spec(text)[0]
    problems = check_spec(text, job)
    if problems:
        raise UserError(f"{job.job}: {problems[0]}")
    facts = begun(job, runner=f"local ({place.runner})", image=image)
    runs = place.runs.absolute()
    names = step_names(spec, loops_of(job))
    arguments = parameters(job, registry=place.registry_uri())  # looks at the data: before there is a folder
    run = resume or new_run(runs, spec["pipelineInfo"]["name"], job.job, names, facts)
    if "run" in arguments:
        arguments["run"] = run.id
    with _interruptible() as stops, run.held():  # in this order: the lock names whom to signal
        if resume is not None:
            run = _again(run)
            began -= float(run.facts.get("seconds") or 0)
        try:
            if resume is not None:
                run.save(**facts, **Holder.here().facts(), status="running", steps=[pending(name) for name in names])
            storage.write_bytes(run.folder / "pipeline.yaml", text.encode())
            _execute(run, text, arguments, place, console, stops)
        except BaseException as error:
            if isinstance(error, UserError) and resume is None and not run.began:  # refused: as if it was never asked
                shutil.rmtree(run.folder, ignore_errors=True)
                raise
            _close(run, "failed", began)
            if isinstance(error, KeyboardInterrupt):
                run.save(interrupted=True)
            else:
                gallery.write(runs, place.registry_uri())
            raise
        _finish(run)
        _close(run, "succeeded", began)
        run.build_report()
        gallery.write(runs, place.registry_uri())
    return run


def begun(job: AnyJob, *, runner: str, image: str, parents: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a run's record says of how it was begun."""
    config = job.model_dump(mode="json")
    return {
        "runner": runner,
        "code_version": code_version(),
        "image": image,
        "config": config,
        "config_hash": config_hash(config),
        "parents": list(parents),
    }


def _again(run: Run) -> Run:
    """What is known of a run now that it is held: another process may have ended it since it was chosen."""
    now = find_run(run.folder.parent.parent, str(run.folder))
    if now.status == "succeeded":
        raise UserError(f"run {run.id}: another process has gone on with it meanwhile; it has ended")
    return now


def _execute(
    run: Run,
    text: str,
    arguments: Mapping[str, Any],
    place: LocalPlace,
    console: Console,
    stops: list[Callable[[], None]],
) -> None:
    from kfp import components, local

    runs = place.runs.absolute()
    events = run.folder / "events.jsonl"
    with contextlib.ExitStack() as stack:
        scratch: Path
        scratch, owned = stack.enter_context(scratches.held_folder())
        version = str(run.facts["code_version"])
        threads = choose(os.environ, run.facts)
        run.save(threads=threads.count)
        env = step_environment(ROOT, runs, events, scratch, version, place.pass_variables) | threads.environment()
        display = stack.enter_context(Display(run, events, console))
        if threads.line:
            display.note(threads.line)
        stack.enter_context(live_report(run))
        processes = stack.enter_context(StepProcesses(env, owned))
        stops.append(processes.stop)
        watcher = Watcher(run, display, processes)
        if place.runner == "docker":
            folders = mounted_folders(run, runs, place.registry_uri(), env)
            inside = container_environment(env, place.pass_variables)
            runner = stack.enter_context(docker_runner(run.id, str(run.facts["image"]), folders, inside, place.limits))
            stack.enter_context(observed_docker(watcher.logging, watcher.exited))
        else:
            runner = local.SubprocessRunner(use_venv=False)
        stack.enter_context(observed(watcher, runs / ".cache" if place.cache else None))
        stream = stack.enter_context((run.folder / "runner.log").open("a", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(stream))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for step in (runs / STORE).glob("*/*"):  # each try of a step has a folder of its own
            sweep(step)
        local.init(
            runner=runner,
            pipeline_root=str(runs / STORE),
            workspace_root=str(scratch / "workspace"),
            raise_on_error=True,
        )
        try:
            components.load_component_from_text(text)(**arguments)
        except RuntimeError:  # what a task in a loop raises stays in its thread
            if watcher.failure is not None:
                raise watcher.failure from None
            raise
        for entry in run.steps:  # the branch that the gate did not take
            if entry["state"] == "pending":
                run.update(entry["name"], state="skipped")


def loops_of(job: AnyJob) -> dict[str, int]:
    """How often the job's pipeline begins each step that is in a loop."""
    search, many = getattr(job, "search", None), getattr(job, "many", None)
    return {TRIAL: search.trials if search else 0, DRAW: many.workers if many else 0}


def step_names(spec: Mapping[str, Any], loops: Mapping[str, int]) -> list[str]:
    """Names of the steps in a compiled pipeline, in the order in which they are shown; one of `loops` is as many."""
    names = {name for _, name, _ in tasks(spec)}
    listed = []
    for name in (name for name in STEPS if name in names):
        listed += [f"{name}-{number + 1}" for number in range(loops[name])] if name in loops else [name]
    return listed


def _finish(run: Run) -> None:
    metrics = run.folder / "steps" / "evaluate" / "metrics.json"
    if metrics.exists():
        storage.write_bytes(run.folder / "metrics.json", storage.read_bytes(metrics))
    gate = run.folder / "steps" / "gate"
    if (gate / VERDICT).exists():
        run.save(gate=Verdict.read(gate).facts())
    search = run.folder / "steps" / "choose" / "search.json"
    if search.exists():
        run.save(search=read(Search, str(search)).model_dump(include=set(Search.model_fields)))
    shards = run.folder / "steps" / "collect-shards" / "manifest.json"
    if shards.exists():
        whole = storage.read_json(shards, limit=1 << 30)
        run.save(many={"out": whole["out"], "count": whole["count"], "shards": len(whole["shards"])})


def _close(run: Run, status: str, began: float) -> None:
    for entry in run.facts["steps"]:
        if entry["state"] == "running":
            entry.update(state="failed", error="interrupted")
    run.save(status=status, seconds=round(time.monotonic() - began, 3))


@contextlib.contextmanager
def _interruptible() -> Iterator[list[Callable[[], None]]]:
    """SIGTERM ends a run as Ctrl-C does. The list's functions are called at once: KFP waits for a loop's threads."""
    stops: list[Callable[[], None]] = []

    def interrupt(*_: object) -> None:
        for stop in stops:
            stop()
        raise KeyboardInterrupt

    previous: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, interrupt)
    except ValueError:  # not the main thread
        yield stops
        return
    try:
        yield stops
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
