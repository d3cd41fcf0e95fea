"""A run on a service as it is now: its steps as a tree with state, time, cost so far and errors."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from core.errors import UserError
from core.printable import printable, say

ENDED = ("succeeded", "failed", "cancelled")
_COLOURS = {"running": "cyan", "succeeded": "green", "cached": "green", "failed": "red", "cancelled": "yellow"}
_CAPACITY = ("resource_exhausted", "resources are insufficient", "quota", "stockout", "resource_pool_exhausted")


@dataclass
class Step:
    """One step of a run; a branch or a nested pipeline has steps of its own."""

    name: str
    state: str
    seconds: float
    usd: float | None
    error: str
    jobs: tuple[str, ...]
    """Custom jobs or pods whose logs are this step's, the one that did the work last."""
    artifacts: dict[str, dict[str, Any]]
    steps: list[Step] = field(default_factory=list)

    def all(self) -> Iterator[Step]:
        """This step and all below it."""
        yield self
        for step in self.steps:
            yield from step.all()


@dataclass
class View:
    """A run as it is now."""

    run: str
    job: str
    state: str
    seconds: float
    usd: float | None
    error: str
    root: Step
    created: datetime | None = None
    identity: str = ""
    """What the service calls the run, where that is another name."""

    @property
    def steps(self) -> list[Step]:
        """All steps that do work, without branches."""
        return [step for step in self.root.all() if not step.steps and step is not self.root]

    def step(self, name: str) -> Step:
        """The step called `name`.

        Raises:
            UserError: the run has none, or has not come to it.
        """
        for step in self.steps:
            if step.name == name:
                return step
        have = ", ".join(step.name for step in self.steps) or "none yet"
        raise UserError(f"step {name!r}: not in run {self.run}; steps so far: {have}")

    @property
    def failed(self) -> list[Step]:
        return [step for step in self.steps if step.state == "failed"]

    @property
    def out_of_capacity(self) -> bool:
        """Whether the run failed because the machines that it asked for could not be had."""
        errors = [step.error.lower() for step in self.failed]
        return self.state == "failed" and any(word in error for error in errors for word in _CAPACITY)


def arrange(step: Step, component: Mapping[str, Any], components: Mapping[str, Any], *, ended: bool) -> None:
    """Puts a DAG's steps in the order of its definition, with those that have not begun, and without its branches."""
    by_name = {inner.name: inner for inner in step.steps}
    arranged: list[Step] = []
    waits = "skipped" if ended or step.state == "skipped" else "pending"
    for name in _in_order(component.get("dag", {}).get("tasks", {})):
        task = component["dag"]["tasks"][name]
        inner = by_name.get(name) or Step(name, waits, 0.0, None, "", (), {})
        definition = components[task["componentRef"]["name"]]
        if "dag" in definition:
            arrange(inner, definition, components, ended=ended)
        # A branch is not a step: its steps are shown in its place.
        arranged += inner.steps if name.startswith("condition-") and "dag" in definition else [inner]
    step.steps = arranged


def _in_order(tasks: Mapping[str, Any]) -> list[str]:
    """Names of tasks so that each comes after those it depends on; otherwise as they are written."""
    order: list[str] = []
    left = dict(tasks)
    while left:
        ready = [n for n, task in left.items() if not set(task.get("dependentTasks", [])) & set(left)] or list(left)
        order += ready
        left = {name: task for name, task in left.items() if name not in ready}
    return order


def render(shown: View) -> Any:
    """The tree that is printed."""
    from rich import markup
    from rich.tree import Tree

    def escape(text: str) -> str:
        return markup.escape(printable(text, one_line=True))

    so_far = "" if shown.state in ENDED else " so far"
    cost = "" if shown.usd is None else f"  {shown.usd:.2f} USD{so_far}"
    tree = Tree(f"[bold]{escape(shown.run)}[/] {_coloured(shown.state)}  {clock(shown.seconds)}{cost}")

    def grow(parent: Any, steps: list[Step]) -> None:
        for step in steps:
            cost = f"  {step.usd:.2f} USD" if step.usd is not None and step.seconds else ""
            took = f"  {clock(step.seconds)}" if step.seconds else ""
            branch = parent.add(f"{escape(step.name)}  {_coloured(step.state)}{took}{cost}")
            if step.error:
                branch.add(f"[red]{escape(step.error)}[/]")
            grow(branch, step.steps)

    grow(tree, shown.root.steps)
    if shown.error and not shown.failed:
        tree.add(f"[red]{escape(shown.error)}[/]")
    return tree


def _coloured(state: str) -> str:
    colour = _COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else printable(state, one_line=True)


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def exit_code(state: str) -> int:
    """The exit code that says how a run ended: 0 succeeded, 1 failed, 130 cancelled."""
    return {"succeeded": 0, "cancelled": 130}.get(state, 1)


def end(shown: View) -> int:
    """Says how a run ended when it did not succeed; returns its exit code."""
    for step in shown.failed:
        say(f"error: step {step.name} failed: {step.error}", to=sys.stderr)
        say(f"  its log: textdiffusion monitor {shown.run} --logs --step {step.name}", to=sys.stderr)
    if shown.state == "failed":
        say(f"  once mended, go on from there: textdiffusion retry {shown.run}", to=sys.stderr)
    return exit_code(shown.state)


def end_of(shown: View) -> Step:
    """The step whose log is wanted first: the one that failed, else the one that runs, else the last that ran.

    Raises:
        UserError: no step has begun.
    """
    order = [*shown.failed, *(s for s in shown.steps if s.state == "running")]
    order += [step for step in reversed(shown.steps) if step.jobs]
    if not order:
        raise UserError(f"run {shown.run}: no step has begun")
    return order[0]


def follow(look: Callable[[], View], show: Callable[[View], None], *, interval: float = 10.0) -> View:
    """Calls `show` each time a run is looked at, until it has ended; returns its last state."""
    misses = 0
    while True:
        try:
            shown = look()
            misses = 0
        except UserError:
            misses += 1
            if misses > 5:  # a short outage of the service is not the end of the run
                raise
            time.sleep(interval)
            continue
        show(shown)
        if shown.state in ENDED:
            return shown
        time.sleep(interval)
