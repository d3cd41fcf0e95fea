"""`--max-cost` as time limits: every step of a run is ended before the sum of all could cost more.

The limits follow from the job and the cap alone. What steps took in earlier runs is left out: a step's limit is one of
its inputs, and another one each time would keep it out of the cache.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from components.deadline import SECONDS
from factory.job import AnyJob
from pipelines import costs
from pipelines.checks import tasks
from pipelines.costs import RUN_FEE, STARTUP_HOURS, TRIALS
from pipelines.machines import Machine

LEAST = 60  # seconds; with less no step can begin


def limits(spec: Mapping[str, Any], job: AnyJob, machines: Mapping[str, Machine], max_cost: float) -> dict[str, int]:
    """Seconds that each step may take so that the run costs at most `max_cost`, with the start of every machine and
    every retry; less than `LEAST` where the cap cannot be held.

    The cap is shared among steps as the estimate is. Steps whose machine has no price get none.
    """
    expected = costs.estimate(spec, job, machines)
    attempts = _attempts(spec)
    shares = {}
    for step in expected.steps:
        if step.usd:
            starts = STARTUP_HOURS * costs.rounds(job, step.step)
            shares[step.step] = (step.hours + (starts if step.bound else 0), step.usd / step.hours, starts)
    total = sum(hours * hourly * attempts.get(name, 1) for name, (hours, hourly, _) in shares.items())
    factor = (max_cost - RUN_FEE) / total if total else 1.0
    seconds = {}
    for name, (hours, _, starts) in shares.items():
        left = (hours * factor - starts) * 3600
        seconds[name] = int(left / costs.rounds(job, name))
    return seconds


def with_limits(spec: Mapping[str, Any], seconds: Mapping[str, int]) -> dict[str, Any]:
    """A copy of a pipeline compiled for Vertex whose steps end after so many seconds, if not sooner.

    A custom job is ended by the service, a step on a machine without accelerators and a trial by themselves.
    """
    changed = copy.deepcopy(dict(spec))
    for name, component in changed["components"].items():
        limit = seconds.get(name.removeprefix("comp-"))
        timeout = component.get("inputDefinitions", {}).get("parameters", {}).get("timeout")
        label = component.get("executorLabel")
        if limit is None or label is None:
            continue
        if timeout:
            timeout["defaultValue"] = f"{min(limit, int(timeout['defaultValue'][:-1]))}s"
        elif name != f"comp-{TRIALS}":
            container = changed["deploymentSpec"]["executors"][label]["container"]
            env = [item for item in container.get("env", []) if item["name"] != SECONDS]
            container["env"] = [*env, {"name": SECONDS, "value": str(limit)}]
    for own in _trial_limits(changed):
        own["constant"] = min(float(seconds.get(TRIALS, own["constant"])), own["constant"])
    return changed


def _trial_limits(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for _, name, task in tasks(spec):
        if name == "plan-trials":
            yield task["inputs"]["parameters"]["timeout_seconds"]["runtimeValue"]


def _attempts(spec: Mapping[str, Any]) -> dict[str, int]:
    """How often each step is begun at most."""
    retried = ((name, task.get("retryPolicy", {}).get("maxRetryCount", 0)) for _, name, task in tasks(spec))
    return {name: 1 + int(count) for name, count in retried}
