"""What a run costs: before it starts as an estimate, while it runs from the time its steps took.

Prices are the dated rows of resources.yaml (`usd_per_hour`); a row says whether its figure was verified. Beside the
machines, Vertex AI Pipelines charges a fee for each run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from factory.job import AnyJob
from factory.many import DRAW
from factory.steps import STEPS
from pipelines import dataflow
from pipelines.checks import section_of, worker_pools
from pipelines.dataflow import Workers, workers_of
from pipelines.machines import IN_CLUSTER, Machine, Price

RUN_FEE = 0.03  # USD a run; quoted by finout.io, read 2026-11
STARTUP_HOURS = 0.1  # a machine starts and pulls the image
STEP_HOURS = 0.1  # a step of which nothing is known
SPOT = 0.4  # of the price on demand; spot prices float between about 0.1 and 0.6 of it
TRIALS = "trials"  # the step that is a hyper-parameter tuning job


@dataclass(frozen=True)
class StepCost:
    """One step of an estimate; `usd` is None when its machine has no price. `bound` marks an upper bound."""

    step: str
    machine: str
    hours: float
    usd: float | None
    basis: str
    bound: bool = False


@dataclass(frozen=True)
class Estimate:
    """The cost of a run before it starts."""

    steps: tuple[StepCost, ...]
    verified: bool
    dates: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def usd(self) -> float:
        """USD of all steps whose price is known, and the fee."""
        return RUN_FEE + sum(step.usd or 0.0 for step in self.steps)

    @property
    def unpriced(self) -> tuple[str, ...]:
        return tuple(sorted({step.machine for step in self.steps if step.usd is None}))

    def line(self) -> str:
        """`about 1.23 USD (...)`, or `at most`, when a step's time is only bounded."""
        words = "at most" if any(step.bound for step in self.steps) else "about"
        doubt = "" if self.verified else ", prices not verified"
        missing = f", without {', '.join(self.unpriced)}" if self.unpriced else ""
        return f"{words} {self.usd:.2f} USD (prices of {max(self.dates, default='no date')}{doubt}{missing})"


@dataclass(frozen=True)
class Hourly:
    """USD an hour of what runs until it is ended, on its fewest and its most machines; None: without a price."""

    least: float | None
    most: float | None
    price: Price | None

    def line(self) -> str:
        """`0.15 to 0.31 USD an hour (...)`."""
        if self.least is None or self.most is None or self.price is None:
            return "no price: its row of resources.yaml states none"
        several = f"{self.least:.2f} to " if self.least != self.most else ""
        doubt = "" if self.price.verified else ", not verified"
        return f"{several}{self.most:.2f} USD an hour until it is ended (training's prices of {self.price.date}{doubt})"


def running(row: Machine, least: int, most: int, *, spot: bool = False) -> Hourly:
    """What `least` to `most` machines of a row cost for an hour."""
    each = row.price()
    if each is None:
        return Hourly(None, None, None)
    share = SPOT if spot else 1
    return Hourly(least * each * share, most * each * share, row.usd_per_hour)


def estimate(
    spec: Mapping[str, Any], job: AnyJob, machines: Mapping[str, Machine], history: Mapping[str, float] | None = None
) -> Estimate:
    """The cost of running a compiled pipeline once.

    Args:
        spec: as compiled for Vertex.
        job: its budgets give the time of training.
        machines: priced rows.
        history: hours that steps took in an earlier run of the job, by step.
    """
    steps, used, workers = [], [], workers_of(spec)
    for step, row, replicas, spot in placed(spec, machines):
        hours, basis, bound = _hours(step, job, history or {})
        rate = _rate(row, replicas, spot, workers.get(step))
        if row and row.usd_per_hour:
            used.append(row.usd_per_hour)
        name = _name(row) + (" spot" if spot else "") if row else "unknown machine"
        if step in workers:
            name, bound = f"{name} + {workers[step]}", True  # it may start fewer
            used.append(dataflow.PRICE)
        steps.append(StepCost(step, name, hours, None if rate is None else rate * hours, basis, bound))
    return Estimate(
        tuple(steps),
        verified=all(price.verified for price in used),
        dates=tuple(sorted({price.date.isoformat() for price in used})),
        sources=tuple(sorted({price.source for price in used})),
    )


def hourly(spec: Mapping[str, Any], machines: Mapping[str, Machine]) -> dict[str, float]:
    """USD per hour of each step of a compiled pipeline, for those whose machine has a price."""
    workers = workers_of(spec)
    rates = {
        step: _rate(row, replicas, spot, workers.get(step)) for step, row, replicas, spot in placed(spec, machines)
    }
    return {step: rate for step, rate in rates.items() if rate is not None}


def _rate(row: Machine | None, replicas: int, spot: bool, workers: Workers | None) -> float | None:
    """USD an hour of a step's machines, and of all that Dataflow may start for it; None: one has no price."""
    own = row.price() if row else None
    theirs = workers.usd_per_hour if workers else 0.0
    return None if own is None or theirs is None else own * replicas * (SPOT if spot else 1) + theirs


def placed(spec: Mapping[str, Any], machines: Mapping[str, Machine]) -> Iterator[tuple[str, Machine | None, int, bool]]:
    """(step, its row of resources.yaml or None, replicas, spot) for each step of a compiled pipeline. Trials of a
    search, and workers that draw shards, that run at once count as replicas."""
    executors = spec["deploymentSpec"]["executors"]
    for name, component in sorted(spec["components"].items()):
        label = component.get("executorLabel")
        if label is None or "container" not in executors[label]:
            continue
        step = name.removeprefix("comp-")
        defaults = component.get("inputDefinitions", {}).get("parameters", {})
        pools = [pool for owner, pool in worker_pools(spec) if owner == step]
        if pools:
            wanted = pools[0]["machine_spec"]
            row = row_of(machines, wanted.get("machine_type"), wanted.get("accelerator_type") or None,
                       int(wanted.get("accelerator_count") or 0))  # fmt: skip
            replicas = sum(int(pool.get("replica_count", 1)) for pool in pools)
            replicas *= at_once(spec, step) * in_loop(spec, step)
            yield step, row, replicas, defaults.get("strategy", {}).get("defaultValue") == "SPOT"
        else:
            resources = executors[label]["container"].get("resources", {})
            yield step, _by_size(machines, resources), in_loop(spec, step), False


def in_loop(spec: Mapping[str, Any], step: str) -> int:
    """How many tasks of a step that draws shards run at once in their loop; 1 for any other step."""
    return int(section_of(spec, "many")["parallel"]) if step == DRAW else 1


def at_once(spec: Mapping[str, Any], step: str) -> int:
    """How many jobs of its size a step has at once: the parallel trials of a search, otherwise 1."""
    if step != TRIALS:
        return 1
    return int(section_of(spec, "search")["parallel"])


def rounds(job: AnyJob, step: str) -> float:
    """How often a parallel place of a step is taken: by trials of a search, or by workers that draw shards."""
    search, many = getattr(job, "search", None), getattr(job, "many", None)
    tasks, places = 1, 1
    if step == TRIALS and search is not None:
        tasks, places = search.trials, search.parallel
    elif step == DRAW and many is not None:
        tasks, places = many.workers, many.parallel
    return max(1.0, tasks / places)


def row_of(machines: Mapping[str, Machine], machine: str | None, accelerator: str | None, count: int) -> Machine | None:
    """The row for a machine as a service names it; None if there is none."""
    for row in machines.values():
        if (row.machine_type, row.accelerator_type) == (machine, accelerator) and (
            not accelerator or row.accelerator_count == count
        ):
            return row
    return None


def _by_size(machines: Mapping[str, Machine], resources: Mapping[str, Any]) -> Machine | None:
    accelerator = resources.get("accelerator", {})
    kind = accelerator.get("resourceType") or accelerator.get("type")
    cpu = float(resources.get("cpuLimit", 0) or resources.get("resourceCpuLimit", 0) or 0)
    if kind == IN_CLUSTER:  # Kubernetes knows a GPU by its count alone
        count = int(accelerator.get("resourceCount") or accelerator.get("count") or 0)
        fitting = [row for row in machines.values() if (row.accelerator_count, row.cpu) == (count, cpu)]
    else:
        fitting = [row for row in machines.values() if row.accelerator_type == kind and row.cpu >= cpu]
    return min(fitting, key=lambda row: row.cpu, default=None)


def _hours(step: str, job: AnyJob, history: Mapping[str, float]) -> tuple[float, str, bool]:
    """Hours from a step's begin to its end, where that is known from, and whether it is only a bound."""
    if step == TRIALS:
        return _search_hours(job, history)
    section = STEPS[step].budget if step in STEPS else ""
    budget = getattr(job, section, None) if section else None
    if budget is not None and budget.minutes is not None:
        return budget.minutes / 60 + STARTUP_HOURS, f"{section}.minutes", False
    if step in history:
        return history[step], "an earlier run", False
    if section:
        return job.resources.timeout_hours, "resources.timeout_hours", True
    return rounds(job, step) * (STEP_HOURS + STARTUP_HOURS), "assumed", False


def _search_hours(job: AnyJob, history: Mapping[str, float]) -> tuple[float, str, bool]:
    search = getattr(job, "search", None)
    assert search is not None
    rounds = search.trials / search.parallel  # a last round that is not full costs only its trials
    if search.minutes is not None:
        return rounds * (search.minutes / 60 + STARTUP_HOURS), "search.minutes", False
    if TRIALS in history:
        return history[TRIALS], "an earlier run", False
    return rounds * job.resources.timeout_hours, "resources.timeout_hours", True


def _name(row: Machine) -> str:
    if not row.accelerator_type:
        return row.machine_type
    return f"{row.machine_type} + {row.accelerator_count} x {row.accelerator_type}"
