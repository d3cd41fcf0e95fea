"""What runs at once in a compiled pipeline: a quota must cover the sum over steps that do not wait for each other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

Spec = Mapping[str, Any]


def most_at_once(spec: Spec, weights: Mapping[str, int]) -> int:
    """The largest sum of weights over steps of which none depends on another.

    Args:
        spec: of the pipeline.
        weights: of steps, such as their GPUs; those that are not named weigh nothing.
    """
    return _most(spec, spec["root"], weights)


def _most(spec: Spec, component: Mapping[str, Any], weights: Mapping[str, int]) -> int:
    tasks = component["dag"]["tasks"]
    weighs: dict[str, int] = {}
    for name, task in tasks.items():
        reference = task["componentRef"]["name"]
        inner = spec["components"][reference]
        weight = _most(spec, inner, weights) if "dag" in inner else weights.get(reference.removeprefix("comp-"), 0)
        weighs[name] = weight * max(1, int(task.get("iteratorPolicy", {}).get("parallelismLimit", 1)))
    heavy = sorted(name for name, weight in weighs.items() if weight)  # a handful, so every set of them can be tried
    before = {name: _before(name, tasks) for name in heavy}
    best = 0
    for size in range(1, len(heavy) + 1):
        for together in combinations(heavy, size):
            if not any(before[name] & set(together) for name in together):
                best = max(best, sum(weighs[name] for name in together))
    return best


def _before(name: str, tasks: Mapping[str, Any]) -> set[str]:
    """All tasks that end before `name` begins."""
    earlier: set[str] = set()
    left = [name]
    while left:
        for other in tasks[left.pop()].get("dependentTasks", []):
            if other not in earlier:
                earlier.add(other)
                left.append(other)
    return earlier
