"""What comparisons by equal rules share: tasks within seconds, each noted at once; settings by validation; options."""

from __future__ import annotations

import statistics
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from benchmarks.results import machine, work_folder
from benchmarks.workers import Workers
from core import storage
from core.processes.world import own_device
from core.requests import Facts

Task = Callable[[], Any]
Key = tuple[Any, ...]
"""("short", contender, *settings), ("training", *labels), (part, name) or (part,)."""


class Named(Protocol):
    """Who is compared."""

    @property
    def name(self) -> str: ...


C = TypeVar("C", bound=Named)


class Comparison(Generic[C]):
    """Contenders, and `found`, what was measured of them: written again after each task.

    Args:
        chosen: the command line (`compare`).
        place: folder of data sets and judges.
        field: all contenders, of which `--only` names some.
        parts: of `found`, by name, beside what every comparison has.
    """

    file: str  # of `found`, in `--out`
    settings: tuple[str, ...]  # that a short run decides: in the key of its task, in order
    labels: tuple[str, ...]  # of a training: in the key of its task, in order

    def __init__(self, chosen: Namespace, place: Path, field: Sequence[C], parts: Sequence[str]) -> None:
        self.chosen, self.place, self.began = chosen, place, time.monotonic()
        self.workers = Workers(chosen.workers or (4 if own_device().type == "cuda" else 1))
        names = chosen.only.split(",") if chosen.only else [one.name for one in field]
        self.field = [one for one in field if one.name in names]
        self.found: Facts = {
            "measured on": machine(),
            "arguments": {key: str(value) for key, value in vars(chosen).items() if value is not None},
            **{part: {} for part in (*parts, "chosen", "errors")},
            **{part: [] for part in ("short runs", "trainings")},
        }

    def middle(self, one: C) -> Facts:
        """The settings of a contender without a short run."""
        raise NotImplementedError

    def do(self, tasks: Mapping[Key, Task], share: float = 1.0) -> None:
        """Notes what ends within `share` of the seconds since the beginning, each at once; errors are noted too."""
        for key, facts in self.workers.run(tasks, self.began + share * self.chosen.seconds):
            if isinstance(facts, BaseException):
                self.found["errors"][str(key)] = facts = f"{type(facts).__name__}: {str(facts)[:500]}"
            else:
                self._note(key, facts)
            self.found["seconds"] = round(time.monotonic() - self.began, 1)
            storage.write_json(self.chosen.out / self.file, self.found)
            print(f"{self.found['seconds']} s, {', '.join(map(str, key))}: {str(facts)[:500]}", flush=True)

    def _note(self, key: Key, facts: Facts) -> None:
        kind, *rest = key
        if kind == "short":
            name, *settings = rest
            row = {"contender": name, **dict(zip(self.settings, settings, strict=True))}
            self.found["short runs"].append(row | facts)
        elif kind == "training":
            self.found["trainings"].append({**dict(zip(self.labels, rest, strict=True)), **facts})
        elif rest:
            self.found[kind][rest[0]] = facts
        else:
            self.found[kind] = facts

    def choose(self, field: Sequence[C]) -> None:
        """Each one's settings: those of the lowest loss on validation after a short run, else the middle ones."""
        for one in field:
            rows = [row for row in self.found["short runs"] if row["contender"] == one.name]
            best = min(rows, key=lambda row: row["loss"]) if rows else self.middle(one)
            kept = {key: best[key] for key in self.settings}
            self.found["chosen"][one.name] = {**kept, "of": len(rows) or "no short run: the middle one"}


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of several trainings; of one alone the value."""
    mean = f"{statistics.mean(values):.3g}"
    return f"{mean} ± {statistics.stdev(values):.2g}" if len(values) > 1 else mean


def compare(
    options: ArgumentParser,
    tiny: Facts,
    run: Callable[[Namespace, Path], Facts],
    show: Callable[[Facts, Path], None],
) -> None:
    """Runs a comparison by the command line, or shows one that was run.

    Args:
        options: its own; those of every comparison are added.
        tiny: what they are with `--tiny`.
        run: the comparison, in a folder of data sets and judges; what it measured.
        show: prints that and writes it to a folder.
    """
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=560, help="limit for everything together")
    options.add_argument("--only", help="contenders, separated by commas")
    options.add_argument("--workers", type=int, help="processes; default: 4 on a GPU, 1 on a CPU")
    options.add_argument("--work", type=Path, help="folder of data sets and judges; default: a temporary one")
    options.add_argument("--tiny", action="store_true", help="next to no work, to see that everything runs")
    options.add_argument("--show", type=Path, help="the JSON of a run: its tables and pictures, nothing is trained")
    chosen = options.parse_args()
    if chosen.show:
        show(storage.read_json(chosen.show), chosen.out)
        return
    for key, value in tiny.items() if chosen.tiny else ():
        setattr(chosen, key, value)
    with work_folder(chosen.work) as place:
        found = run(chosen, place)
    show(found, chosen.out)
