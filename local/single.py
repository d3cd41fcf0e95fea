"""One step of an earlier run again, in this process: for a debugger, or to try a changed setting on the same inputs."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import pdb
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from core import storage
from core.config import config_hash, with_overrides
from core.errors import UserError
from core.names import inside
from core.secrets import redact
from factory.job import AnyJob, parse_job
from factory.run_folder import STORE, Run, find_run, new_run
from local.runner import LocalPlace
from local.version import code_version
from local.watcher import StepError, place_outputs
from pipelines.jobs import check_numbers, parameters

_COMPONENTS: Mapping[str, str] = {  # step -> component; for text, <component>_text if there is one
    "import-model": "components.import_model:import_model",
    "prepare-data": "components.prepare_data:prepare_data",
    "train-judge": "components.train_judge:train_judge",
    "train": "components.train:train",
    "train-autoregressive": "components.train:train_autoregressive",
    "train-diffusion": "components.train:train_diffusion",
    "sample": "components.sample:sample",
    "evaluate": "components.evaluate:evaluate",
    "gate": "components.gate:gate",
    "register": "components.register:register",
    "keep": "components.keep:keep",
}


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
    component = _component(step, config)
    available = before.artifacts()
    inputs, outputs = _interface(component)
    for name in inputs:
        if (available.get(name) or {}).get("path") is None:
            raise UserError(f"--only {step}: run {before.id} has no artifact {name!r}, which the step needs")
    values = config.model_dump(mode="json")
    facts = {
        "runner": "in-process",
        "code_version": code_version(),
        "image": "none: in-process",
        "config": values,
        "config_hash": config_hash(values),
        "parents": [before.id],
    }
    run = new_run(runs, str(before.facts["pipeline"]), config.job, [step], facts)
    with run.held():
        return _run_held(run, step, component, config, place, debug, available, inputs, outputs)


def _run_held(
    run: Run,
    step: str,
    component: Any,
    config: AnyJob,
    place: LocalPlace,
    debug: bool,
    available: Mapping[str, Any],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
) -> Run:
    runs = place.runs.absolute()
    store = inside(runs, f"{STORE}/{run.id}/{step}")
    arguments: dict[str, Any] = {}
    for name, kind in inputs.items():
        found = available[name]
        uri = found["uri"] if _in_store(runs, found["uri"]) else str(found["path"])  # a record may name any file
        arguments[name] = kind(name=name, uri=uri, metadata=dict(found["metadata"]))
    for name, kind in outputs.items():
        arguments[name] = kind(name=name, uri=str(inside(store, name)))
    store.mkdir(parents=True)
    arguments |= _parameters(component, config, place, run)
    began = time.monotonic()
    run.begin(step)
    try:
        with _environment(runs, str(run.facts["code_version"])):
            _call(component.python_func, arguments, debug)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        refused = isinstance(error, SystemExit) and error.code == UserError.EXIT_CODE
        message = "refused its input (see above)" if refused else redact(f"{type(error).__name__}: {error}")
        run.update(step, state="failed", error=message, seconds=round(time.monotonic() - began, 3))
        run.save(status="failed", seconds=round(time.monotonic() - began, 3))
        if isinstance(error, KeyboardInterrupt):
            raise
        log = inside(run.folder, f"steps/{step}/log.txt")
        storage.write_bytes(log, redact(traceback.format_exc()).encode())
        raise StepError(step, message, log, refused) from error
    made = {name: arguments[name] for name in outputs}
    seconds = round(time.monotonic() - began, 3)
    run.update(step, state="succeeded", seconds=seconds, artifacts=place_outputs(run.folder, step, made))
    metrics = inside(run.folder, f"steps/{step}/metrics.json")
    if step == "evaluate" and metrics.exists():
        storage.write_bytes(run.folder / "metrics.json", metrics.read_bytes())
    run.save(status="succeeded", seconds=seconds)
    return run


def _in_store(runs: Path, uri: str) -> bool:
    path = Path(uri)
    return path.resolve().is_relative_to((runs / ".store").resolve()) and path.exists()


def _component(step: str, job: AnyJob) -> Any:
    if step not in _COMPONENTS:
        raise UserError(f"--only {step}: allowed: {', '.join(_COMPONENTS)}")
    module_name, _, name = _COMPONENTS[step].partition(":")
    module = importlib.import_module(module_name)
    if step == "train-diffusion" and getattr(job, "warm_start", False):
        name += "_warm"
    if job.modality == "text":
        name = f"{name}_text" if hasattr(module, f"{name}_text") else name
    return getattr(module, name)


def _interface(component: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Input artifacts and output artifacts of a component, by name, with their classes."""
    from kfp.dsl.types import type_annotations

    inputs, outputs = {}, {}
    for name, parameter in inspect.signature(component.python_func).parameters.items():
        annotation = parameter.annotation
        if type_annotations.is_artifact_wrapped_in_Input(annotation):
            inputs[name] = type_annotations.strip_Input_or_Output_marker(annotation)
        elif type_annotations.is_artifact_wrapped_in_Output(annotation):
            outputs[name] = type_annotations.strip_Input_or_Output_marker(annotation)
    return inputs, outputs


def _parameters(component: Any, job: AnyJob, place: LocalPlace, run: Run) -> dict[str, Any]:
    values = parameters(job, registry=place.registry_uri(), run=run.id)
    if component.name == "train-autoregressive":
        values["train"] = values["autoregressive"]
    given = {"modality": job.modality, **values, **{f"{name}_config": value for name, value in values.items()}}
    names = inspect.signature(component.python_func).parameters
    return {name: given[name] for name in names if name in given and name not in ("model", "autoregressive")}


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
