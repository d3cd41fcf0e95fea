"""Runs a job on this machine: the compiled pipeline through `kfp.local`, into a run folder, served from cache.

runs/<pipeline>/<run id>/   what a run leaves behind (see local/runs.py)
runs/index.html             the gallery of all of them
runs/.store/                the artifacts as KFP lays them out; run folders hold hard links to them
runs/.cache/                which step with which inputs made which artifacts
runs/.work/                 checkpoints of trainings, by what is trained
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from components.step import whole
from core import storage
from core.config import config_hash
from core.errors import UserError
from core.job import AnyJob, parse_job
from core.secrets import redact
from local import gallery
from local.containers import docker_runner, mounted_folders
from local.kfp_seam import observed, observed_docker
from local.processes import StepProcesses
from local.progress import Display
from local.runs import STEPS, Run, link_tree, new_run, pending
from local.version import code_version
from pipelines import compile as compiler
from pipelines.checks import check_spec, read_spec, tasks
from pipelines.jobs import absolute, parameters
from pipelines.machines import load_machines

ROOT = compiler.ROOT
_SUFFIXES = {"system.HTML": ".html", "system.Markdown": ".md"}
_IN_METADATA = ("system.Metrics", "system.ClassificationMetrics")  # their files only repeat it


class StepError(Exception):
    """A step ended with an error; the run is marked failed. `user_error`: the error is one a user is to mend."""

    def __init__(self, step: str, message: str, log: Path, user_error: bool) -> None:
        super().__init__(message)
        self.step, self.log, self.user_error = step, log, user_error


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
    """

    runs: Path
    registry: str
    runner: str = "subprocess"
    image: str = "textdiffusion"
    machines: Mapping[str, Any] | None = None
    cache: bool = True

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
    image = compiler.image_name(place.image)
    text = compiler.compile_job(job, image=image, machines=load_machines(place.machines))
    spec = read_spec(text)[0]
    problems = check_spec(text, job)
    if problems:
        raise UserError(f"{job.job}: {problems[0]}")
    config = job.model_dump(mode="json")
    facts = {
        "runner": f"local ({place.runner})",
        "code_version": code_version(),
        "image": image,
        "config": config,
        "config_hash": config_hash(config),
        "parents": [],
        "pid": os.getpid(),
        "host": os.uname().nodename,
    }
    runs = place.runs.absolute()
    names = step_names(spec)
    if resume is None:
        run = new_run(runs, spec["pipelineInfo"]["name"], job.job, names, facts)
    else:
        run = resume
        began -= float(run.facts.get("seconds") or 0)
        facts["steps"] = [pending(name) for name in names]
        run.save(status="running", **facts)
    storage.write_bytes(run.folder / "pipeline.yaml", text.encode())
    arguments = parameters(job, registry=place.registry_uri(), run=run.id)
    try:
        with _interruptible():
            _execute(run, text, arguments, place, console)
    except BaseException as error:
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


def resume_job(run: Run) -> AnyJob:
    """The job of an unfinished run, as it was started.

    Raises:
        UserError: it still runs.
    """
    if run.alive():
        raise UserError(f"run {run.id}: still running, as process {run.facts['pid']}")
    return parse_job(run.facts["config"], f"{run.id}/run.json")


def _execute(run: Run, text: str, arguments: Mapping[str, Any], place: LocalPlace, console: Console) -> None:
    from kfp import components, local

    runs = place.runs.absolute()
    events = run.folder / "events.jsonl"
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="textdiffusion-")))
        env = step_environment(runs, events, scratch, str(run.facts["code_version"]))
        display = stack.enter_context(Display(run, events, console))
        watcher = _Watcher(run, display, stack.enter_context(StepProcesses(env)))
        if place.runner == "docker":
            folders = mounted_folders(run, runs, place.registry_uri(), env)
            runner = stack.enter_context(docker_runner(run.id, str(run.facts["image"]), folders, env))
            stack.enter_context(observed_docker(watcher.logging, watcher.exited))
        else:
            runner = local.SubprocessRunner(use_venv=False)
        stack.enter_context(observed(watcher))
        stream = stack.enter_context((run.folder / "runner.log").open("a", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(stream))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        local.init(
            runner=runner,
            pipeline_root=str(runs / ".store"),
            workspace_root=str(scratch / "workspace"),
            raise_on_error=True,
            enable_caching=place.cache,
            cache_root=str(runs / ".cache"),
        )
        components.load_component_from_text(text)(**arguments)
        for entry in run.steps:  # the branch that the gate did not take
            if entry["state"] == "pending":
                run.update(entry["name"], state="skipped")


class _Watcher:
    """Keeps run.json and the display up to date while kfp.local executes."""

    def __init__(self, run: Run, display: Display, processes: StepProcesses) -> None:
        self._run, self._display, self._processes = run, display, processes
        self._step, self._began, self._code = "", 0.0, None  # type: tuple[str, float, int | None]

    @property
    def _log(self) -> Path:
        return self._run.folder / "steps" / self._step / "log.txt"

    def begin(self, task: str) -> None:
        self._step, self._began, self._code = task, time.monotonic(), None
        shutil.rmtree(self._log.parent, ignore_errors=True)
        self._run.update(task, state="running")
        self._display.begin(task)

    def launch(self, command: list[str], env: Mapping[str, str]) -> int:
        code = self._processes.run(command, env, self._log)
        self.exited(code)
        return code

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a", encoding="utf-8") as stream, contextlib.redirect_stdout(stream):
            yield

    def exited(self, code: int) -> None:
        self._code = code

    def end(self, task: str, outputs: Mapping[str, Any], succeeded: bool) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        if not succeeded:
            message = step_error(self._log, self._code)
            self._run.update(task, state="failed", seconds=seconds, error=message)
            self._display.end(self._run.step(task))
            raise StepError(task, message, self._log, self._code == UserError.EXIT_CODE)
        cached = self._code is None
        artifacts = place_outputs(self._run.folder, task, outputs)
        state = "cached" if cached else "succeeded"
        self._run.update(task, state=state, seconds=seconds, cached=cached, artifacts=artifacts)
        self._display.end(self._run.step(task))


def place_outputs(folder: Path, step: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Links the artifacts among a task's outputs into `<folder>/steps/<step>/`; returns their entries of run.json."""
    placed: dict[str, Any] = {}
    for name, output in outputs.items():
        uri = getattr(output, "uri", None)
        if uri is None:
            continue
        path: str | None = None
        source = Path(output.path)
        if output.schema_title in _IN_METADATA:
            pass
        elif source.is_dir():
            path = f"steps/{step}"
            link_tree(source, folder / path)
        elif source.is_file():
            path = f"steps/{step}/{name}{_SUFFIXES.get(output.schema_title, '')}"
            link_tree(source, folder / path)
        placed[name] = {"path": path, "uri": uri, "type": output.schema_title, "metadata": whole(output.metadata)}
    return placed


def step_error(log: Path, code: int | None) -> str:
    """The error of a failed step in one line: the last of its log, or the signal that ended it."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory, perhaps)" if name == "SIGKILL" else ""
        return f"ended by {name}{hint}"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), f"ended with exit code {code}")
    return redact(last.removeprefix("error: "))[:500]


def step_environment(runs: Path, events: Path, scratch: Path, version: str) -> dict[str, str]:
    """The environment of a step's process."""
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    return {
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(scratch),
        "TEXTDIFFUSION_CODE_VERSION": version,
        "TEXTDIFFUSION_EVENTS": str(events),
        "TEXTDIFFUSION_WORK": os.environ.get("TEXTDIFFUSION_WORK") or str(runs / ".work"),
    }


def step_names(spec: Mapping[str, Any]) -> list[str]:
    """Names of the steps in a compiled pipeline, in the order in which they are shown."""
    names = {name for _, name, _ in tasks(spec)}
    return [name for name in STEPS if name in names]


def _finish(run: Run) -> None:
    metrics = run.folder / "steps" / "evaluate" / "metrics.json"
    if metrics.exists():
        link_tree(metrics, run.folder / "metrics.json")
    verdict = run.folder / "steps" / "gate" / "verdict.json"
    if verdict.exists():
        run.save(gate=storage.read_json(verdict))


def _close(run: Run, status: str, began: float) -> None:
    for entry in run.facts["steps"]:
        if entry["state"] == "running":
            entry.update(state="failed", error="interrupted")
    run.save(status=status, seconds=round(time.monotonic() - began, 3))


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        previous: Callable[..., Any] | int | None = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
