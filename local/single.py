"""One step of an earlier run again, in this process: for a debugger, or to try a changed setting on the same inputs."""

from __future__ import annotations

import contextlib
import inspect
import os
import pdb
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from components.step import load
from core import storage
from core.config import with_overrides
from core.errors import UserError
from core.names import inside
from core.secrets import redact
from core.similar import did_you_mean
from factory.job import AnyJob, parse_job
from factory.run_folder import STORE, Run, find_run, new_run
from factory.steps import STEPS
from local.runner import LocalPlace, begun
from local.watcher import StepError, place_outputs
from pipelines.checks import read_spec, tasks
from pipelines.compile import compile_job, image_name
from pipelines.jobs import check_numbers, parameters
from pipelines.machines import load_machines


def run_step(
    step: str, origin: str, overrides: list[str], place: LocalPlace, *, job: str | None = None, debug: bool = False
) -> Run:
    """Runs `step` on the artifacts of the run called `origin`; the result is a new run with that one step.

    Args:
        step: name of the step.
        origin: the earlier run.
        overrides: `section.key=value` texts laid over that run's configuration.
        place: where runs are.
        job: if given, the earlier run must be one of this job.
        debug: stop at the step's first line in pdb, and again where an exception was raised.

    Raises:
        StepError: the step failed.
        UserError: the earlier run has no such step, or lacks an artifact that the step needs.
    """
    runs = place.runs.absolute()
    before = find_run(runs, origin)
    if job is not None and before.facts["job"] != job:
        raise UserError(f"--from {before.id}: a run of job {before.facts['job']}, not of {job}")
    before.step(step)
    values = dict(before.facts["config"])
    if before.facts.get("search"):  # what its steps worked with are the winner's settings
        values["train"] = before.facts["search"]["train"]
    config = parse_job(with_overrides(values, overrides), f"{before.id}/run.json with --set")
    check_numbers(config.model_dump(mode="json"), before.id)
    task, outputs = _compiled(step, config, place)
    function = load(step).python_func
    available = before.artifacts()
    inputs = task.get("artifacts", {})
    for name in inputs:
        if (available.get(name) or {}).get("path") is None:
            raise UserError(f"--only {step}: run {before.id} has no artifact {name!r}, which the step needs")
    facts = begun(config, runner="in-process", image="none: in-process", parents=(before.id,))
    run = new_run(runs, str(before.facts["pipeline"]), config.job, [step], facts)
    with run.held():
        arguments = _parameters(task, config, place, run)
        for name in inputs:
            arguments[name] = _artifact(function, name, runs, available[name])
        store = inside(runs, f"{STORE}/{run.id}/{step}")
        store.mkdir(parents=True)
        for name in outputs:
            arguments[name] = _kind(function, name)(name=name, uri=str(inside(store, name)))
        run.begin(step)
        with _environment(runs, str(run.facts["code_version"])):
            seconds = _recorded(run, step, lambda: _call(function, arguments, debug))
        run.update(step, artifacts=place_outputs(run.folder, step, {name: arguments[name] for name in outputs}))
        metrics = inside(run.folder, f"steps/{step}/metrics.json")
        if step == "evaluate" and metrics.exists():
            storage.write_bytes(run.folder / "metrics.json", metrics.read_bytes())
        run.save(status="succeeded", seconds=seconds)
    return run


def _artifact(function: Callable[..., Any], name: str, runs: Path, known: Mapping[str, Any]) -> Any:
    """An input of the step as an artifact of KFP, from what a run's record says of it."""
    uri = known["uri"] if _in_store(runs, known["uri"]) else str(known["path"])  # a record may name any file
    return _kind(function, name)(name=name, uri=uri, metadata=dict(known["metadata"]))


def _recorded(run: Run, step: str, call: Callable[[], None]) -> float:
    """Runs the step and returns its seconds; how it ended is in the run's record.

    Raises:
        StepError: the step failed; its traceback is in its log.
    """
    began = time.monotonic()
    try:
        call()
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        seconds = round(time.monotonic() - began, 3)
        refused = isinstance(error, SystemExit) and error.code == UserError.EXIT_CODE
        message = "refused its input (see above)" if refused else redact(f"{type(error).__name__}: {error}", 500)
        run.update(step, state="failed", error=message, seconds=seconds)
        run.save(status="failed", seconds=seconds)
        if isinstance(error, KeyboardInterrupt):
            raise
        log = inside(run.folder, f"steps/{step}/log.txt")
        storage.write_bytes(log, redact(traceback.format_exc()).encode())
        raise StepError(step, message, log, refused) from error
    seconds = round(time.monotonic() - began, 3)
    run.update(step, state="succeeded", seconds=seconds)
    return seconds


def _in_store(runs: Path, uri: str) -> bool:
    path = Path(uri)
    return path.resolve().is_relative_to((runs / ".store").resolve()) and path.exists()


def _compiled(step: str, job: AnyJob, place: LocalPlace) -> tuple[dict[str, Any], list[str]]:
    """What the step is given in the job's compiled pipeline, and the names of its output artifacts."""
    if job.kind == "training":
        job = job.model_copy(update={"search": None})
    spec = read_spec(compile_job(job, image=image_name(place.image), machines=load_machines(place.machines)))[0]
    by_step = {name: task for _, name, task in tasks(spec) if name in STEPS}
    if step not in by_step:
        raise UserError(
            f"--only {step}: {did_you_mean(step, STEPS)}allowed: {', '.join(name for name in STEPS if name in by_step)}"
        )
    component = spec["components"][by_step[step]["componentRef"]["name"]]
    return by_step[step]["inputs"], list(component.get("outputDefinitions", {}).get("artifacts", {}))


def _kind(function: Callable[..., Any], artifact: str) -> Any:
    """The class of an artifact among a component's inputs and outputs."""
    from kfp.dsl.types import type_annotations

    return type_annotations.strip_Input_or_Output_marker(inspect.signature(function).parameters[artifact].annotation)


def _parameters(task: Mapping[str, Any], job: AnyJob, place: LocalPlace, run: Run) -> dict[str, Any]:
    """The step's parameters: constants, and those of the pipeline (inside of a branch they have a prefix)."""
    values = parameters(job, registry=place.registry_uri(), run=run.id)
    given = {}
    for name, source in task.get("parameters", {}).items():
        if "runtimeValue" in source:
            given[name] = source["runtimeValue"]["constant"]
        else:
            given[name] = values[source["componentInputParameter"].removeprefix("pipelinechannel--")]
    return given


def _call(function: Callable[..., Any], arguments: Mapping[str, Any], debug: bool) -> None:
    if not debug:
        function(**arguments)
        return
    debugger = pdb.Pdb()
    try:
        debugger.runcall(function, **arguments)
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception:
        traceback.print_exc()
        pdb.post_mortem(sys.exc_info()[2])
        raise


@contextlib.contextmanager
def _environment(runs: Path, version: str) -> Iterator[None]:
    """What a step's own process would have in its environment."""
    values = {"TEXTDIFFUSION_CODE_VERSION": version, "TEXTDIFFUSION_IMAGE": "none: in-process"}
    values |= {"TEXTDIFFUSION_WORK": os.environ.get("TEXTDIFFUSION_WORK") or str(runs / ".work")}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
