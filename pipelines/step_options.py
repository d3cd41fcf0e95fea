"""Options of single steps, laid over a compiled pipeline: retries, caching, and the machine that trains.

--step train.retries=2 --step sample.cache=false
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.config import parse_override
from core.errors import UserError
from factory.steps import STEPS
from pipelines.checks import worker_pools
from pipelines.costs import TRIALS
from pipelines.machines import Machine

_OPTIONS = {"retries": int, "cache": bool}


def step_names(spec: Mapping[str, Any]) -> list[str]:
    """Names of the steps of a compiled pipeline, at any depth, without branches and nested pipelines."""
    return sorted({name for name, _, _ in _leaves(spec)})


def with_step_options(spec: Mapping[str, Any], options: Sequence[str]) -> dict[str, Any]:
    """A copy of a compiled pipeline with `STEP.OPTION=VALUE` texts laid over it.

    Raises:
        UserError: there is no such step or option, or the value is of the wrong type.
    """
    changed = copy.deepcopy(dict(spec))
    for text in options:
        path, value = parse_override(text)
        names = step_names(changed)
        step, option = ".".join(path[:-1]), path[-1]
        if step not in names:
            raise UserError(f"--step {text}: no step is called {step or option!r}; steps: {', '.join(names)}")
        if option not in _OPTIONS:
            raise UserError(f"--step {text}: no option is called {option!r}; allowed: {', '.join(_OPTIONS)}")
        wanted = _OPTIONS[option]
        fits = isinstance(value, bool) if wanted is bool else type(value) is int and 0 <= value <= 10
        if not fits:
            allowed = "true or false" if wanted is bool else "0 to 10"
            raise UserError(f"--step {text}: found {value!r}; allowed: {allowed}")
        for name, task, _ in _leaves(changed):
            if name == step and option == "cache":
                task["cachingOptions"] = {"enableCache": True} if value else {}
            elif name == step:
                task["retryPolicy"] = {"maxRetryCount": value, "backoffDuration": "30s", "backoffFactor": 2.0}
    return changed


def without_cache(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a compiled pipeline in which no step is served from the cache."""
    changed = copy.deepcopy(dict(spec))
    for _, task, _ in _leaves(changed):
        task.pop("cachingOptions", None)
    return changed


def with_environment(spec: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """A copy of a compiled pipeline whose container steps all have these environment variables."""
    changed = copy.deepcopy(dict(spec))
    for executor in changed["deploymentSpec"]["executors"].values():
        if "container" in executor and "google_cloud_pipeline_components" not in str(executor["container"]["command"]):
            env = [item for item in executor["container"].get("env", []) if item["name"] not in variables]
            executor["container"]["env"] = env + [{"name": k, "value": v} for k, v in variables.items()]
    for _, pool in worker_pools(changed):
        env = [item for item in pool["container_spec"].get("env", []) if item["name"] not in variables]
        pool["container_spec"]["env"] = env + [{"name": k, "value": v} for k, v in variables.items()]
    return changed


def with_machine(spec: Mapping[str, Any], machine: Machine) -> dict[str, Any]:
    """A copy of a pipeline compiled for Vertex that trains on another machine."""
    changed = copy.deepcopy(dict(spec))
    for name, pool in worker_pools(changed):
        if name == TRIALS or (name in STEPS and STEPS[name].machine == "train"):
            pool["machine_spec"] = machine.spec()
    return changed


def _leaves(spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    components = spec["components"]
    dags = [spec["root"], *(part for part in components.values() if "dag" in part)]
    for dag in dags:
        for name, task in dag["dag"]["tasks"].items():
            component = task["componentRef"]["name"]
            if "executorLabel" in components[component]:
                yield name, task, component
