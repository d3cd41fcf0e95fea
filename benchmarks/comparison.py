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
from core.training.result import InterruptedTrainingError

Task = Callable[[], Any]
Key = tuple[Any, ...]
"""("short", contender, *settings), ("training", *labels), (part, name) or (part,)."""

ROWS = {"short": "short runs", "training": "trainings"}
FREE = frozenset({"only", "seconds", "seeds", "workers", "work", "out", "data_dir"})
"""Arguments in which a run that goes on with another may differ: they say how much is measured, or where."""


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
    free = FREE

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
        self._go_on()

    def middle(self, one: C) -> Facts:
        """The settings of a contender without a short run."""
        raise NotImplementedError

    def _go_on(self) -> None:
        """Begins with what a run before it noted, if `--work` still has its judges; errors are tried again.

        Raises:
            SystemExit: that run had other arguments or another machine, so the two are not one comparison.
        """
        path = self.chosen.out / self.file
        if not self.chosen.work or not path.exists():
            return
        before = storage.read_json(path)
        was, now = ({"on": one["measured on"], **one["arguments"]} for one in (before, self.found))
        for key in sorted((was.keys() | now.keys()) - self.free):
            if was.get(key) != now.get(key):
                raise SystemExit(f"{path} has {key}: {was.get(key)}, not {now.get(key)}; choose another --out")
        self.found |= {key: value for key, value in before.items() if key not in ("arguments", "errors")}

    def do(self, tasks: Mapping[Key, Task], share: float = 1.0) -> None:
        """Notes what ends within `share` of the seconds since the beginning, each at once; errors are noted too.

        What is noted already is not done again.
        """
        left = {key: task for key, task in tasks.items() if not self._noted(key)}
        for key, facts in self.workers.run(left, self.began + share * self.chosen.seconds):
            if isinstance(facts, InterruptedTrainingError):
                raise SystemExit(f"{', '.join(map(str, key))}: stopped by a signal")
            if isinstance(facts, BaseException):
                self.found["errors"][str(key)] = facts = f"{type(facts).__name__}: {str(facts)[:500]}"
            else:
                self._note(key, facts)
            self.found["seconds"] = round(time.monotonic() - self.began, 1)
            self._write()
            print(f"{self.found['seconds']} s, {', '.join(map(str, key))}: {str(facts)[:500]}", flush=True)

    def _note(self, key: Key, facts: Facts) -> None:
        if key[0] in ROWS:
            part, labels = self._row(key)
            self.found[part].append({**labels, **facts})
        elif len(key) > 1:
            self.found[key[0]][key[1]] = facts
        else:
            self.found[key[0]] = facts

    def _noted(self, key: Key) -> bool:
        if key[0] in ROWS:
            part, labels = self._row(key)
            return any(labels.items() <= row.items() for row in self.found[part])
        return bool(self.found[key[0]] if len(key) == 1 else key[1] in self.found[key[0]])

    def _row(self, key: Key) -> tuple[str, Facts]:
        """The list that a training is in, and what it is there told by."""
        part, names = ROWS[key[0]], ("contender", *self.settings) if key[0] == "short" else self.labels
        return part, dict(zip(names, key[1:], strict=True))

    def choose(self, field: Sequence[C]) -> None:
        """Each one's settings: those of the lowest loss on validation after a short run, else the middle ones."""
        for one in field:
            rows = [row for row in self.found["short runs"] if row["contender"] == one.name]
            best = min(rows, key=lambda row: row["loss"]) if rows else self.middle(one)
            kept = {key: best[key] for key in self.settings}
            self.found["chosen"][one.name] = {**kept, "of": len(rows) or "no short run: the middle one"}
        self._write()

    def _write(self) -> None:
        storage.write_json(self.chosen.out / self.file, self.found)


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
    options.add_argument(
        "--work",
        type=Path,
        help="folder of data sets and judges, kept: a run with the same --out goes on; default: none",
    )
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
