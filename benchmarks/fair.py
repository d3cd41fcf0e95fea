"""Fair peers on MNIST: settings chosen on validation, three trainings each, judged on test by two judges.

    python -m benchmarks.fair --data_dir MNIST --seconds 400   # one GPU; --seconds 40000 for two cores
    python -m benchmarks.fair --tiny                                             # every part of it, in a minute
    python -m benchmarks.fair --show build/benchmarks/fair.json                  # tables and picture of what is there

Each contender has three learning rates and two batches: the pair with the lowest loss on validation images after a
short run (`--select` examples) is taken. Then every contender is trained with the first seed at equal examples, then
with the second, and so on; with `--each`, again at equal seconds, by its speed while nothing else runs. Each
training chooses its weight of guidance of three by the second judge's distance to *validation* images, with other
noise than the samples that are reported. Those are compared with training images, and so are test images, the floor.

`fair.json` is written again after each training, so a run that is cut off at `--seconds` still gives numbers. Nothing
is downloaded. On a GPU several trainings share it (`--workers`), and seconds of those say nothing.
"""

from __future__ import annotations

import statistics
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contenders import Choice
from benchmarks.fair_tasks import JUDGES, Facts, costs, full, judged, short
from benchmarks.images import speeds
from benchmarks.peers import fair
from benchmarks.results import machine, parser, publish, work_folder
from benchmarks.workers import Workers
from core import storage
from core.modality import run_here
from core.processes.world import own_device
from core.requests import PrepareDataRequest

SELECTION = 0.45  # of the seconds, at most, go to judges and short runs
TINY = {
    "source": "digits",
    "only": "ours,diffusers",
    "examples": 64,
    "select": 32,
    "seeds": 2,
    "count": 20,
    "judge_epochs": 0.3,
    "batches": "16,32",
    "each": 0.2,
}


class Comparison:
    """All of it, in an order in which a run that is cut off has one seed of everyone first."""

    def __init__(self, chosen: Namespace, place: Path) -> None:
        self.chosen, self.place = chosen, place
        self.began = time.monotonic()
        self.workers = Workers(chosen.workers or (4 if own_device().type == "cuda" else 1))
        self.field = [one for one in fair() if not chosen.only or one.name in chosen.only.split(",")]
        self.batches = [int(batch) for batch in chosen.batches.split(",")]
        self.found: Facts = {
            "measured on": machine(),
            "arguments": {key: str(value) for key, value in vars(chosen).items() if value is not None},
            **{part: {} for part in ("judges", "costs", "chosen", "errors")},
            "short runs": [],
            "trainings": [],
        }

    def run(self) -> Facts:
        self.prepare()
        self.select()
        missing = [which for which in JUDGES if which not in self.found["judges"]]
        if missing:
            raise SystemExit(f"{' and '.join(missing)}: not trained in {SELECTION:.0%} of {self.chosen.seconds:.0f} s")
        self.train("equal examples", {one.name: self.chosen.examples for one in self.field})
        if self.chosen.each and self._left() > self.chosen.each:
            self.train(f"{self.chosen.each:g} s each", self.speeds())
        self.workers.close()
        return self.found

    def prepare(self) -> None:
        source = {"source": self.chosen.source, "data_dir": self.chosen.data_dir if not self.chosen.tiny else None}
        run_here(PrepareDataRequest(modality="images", data=source, out=self.place / "dataset"))

    def select(self) -> None:
        """Judges, costs and short runs; then every contender's learning rate and batch."""
        tasks: dict[Any, Callable[[], Any]] = {
            ("judges", which): partial(judged, self.place, which, self.chosen.judge_epochs, self.chosen.count)
            for which in JUDGES
        }
        rates = 1 if self.chosen.tiny else 3
        choices = [(rate, batch) for rate in range(rates) for batch in self.batches]
        for rate, batch in choices if len(choices) > 1 else []:
            for one in self.field:
                choice = Choice(one.rates[rate], batch)
                tasks["short", one.name, choice] = partial(short, self.place, one.name, choice, self.chosen.select)
        tasks |= {("costs", one.name): partial(costs, self.place, one.name) for one in self.field}
        for key, facts in self._ended(tasks, SELECTION * self.chosen.seconds):
            if key[0] == "short":
                _, name, choice = key
                row = {"contender": name, "learning rate": choice.learning_rate, "batch": choice.batch}
                self.found["short runs"].append(row | facts)
            else:
                self.found[key[0]][key[1]] = facts
            self._write()
        for one in self.field:
            rows = [row for row in self.found["short runs"] if row["contender"] == one.name]
            middle = {"learning rate": one.rates[len(one.rates) // 2], "batch": self.batches[0]}
            best = min(rows, key=lambda row: row["loss"]) if rows else middle
            kept = {key: best[key] for key in middle}
            self.found["chosen"][one.name] = {**kept, "of": len(rows) or "no short run: the middle one"}

    def train(self, table: str, examples: dict[str, int]) -> None:
        """Every contender with every seed, the first seed of all first."""
        tasks: dict[Any, Callable[[], Any]] = {}
        for seed in range(self.chosen.seeds):
            for one in self.field:
                settings = self.found["chosen"][one.name]
                choice = Choice(settings["learning rate"], settings["batch"], seed)
                task = partial(full, self.place, one.name, choice, examples[one.name], self.chosen.count)
                tasks[one.name, seed] = task
        for (name, seed), facts in self._ended(tasks, self.chosen.seconds):
            self.found["trainings"].append({"table": table, "contender": name, "seed": seed, **facts})
            self._write()

    def speeds(self) -> dict[str, int]:
        """How many examples each contender sees in `--each` seconds while it is alone."""
        examples = {}
        for one in self.field:
            settings = self.found["chosen"][one.name]
            choice = Choice(settings["learning rate"], settings["batch"])
            speed = speeds([one], self.place / "dataset", 1, 4 if self.chosen.tiny else 100, choice)[one.name]
            self.found["costs"].setdefault(one.name, {})["images/s alone"] = round(speed, 1)
            examples[one.name] = max(choice.batch, round(speed * self.chosen.each))
        return examples

    def _ended(self, tasks: dict[Any, Callable[[], Any]], seconds: float) -> Any:
        """(key, facts) of the tasks that ended well within `seconds` of the beginning; errors are noted."""
        for key, facts in self.workers.run(tasks, self.began + seconds):
            if isinstance(facts, BaseException):
                self.found["errors"][str(key)] = f"{type(facts).__name__}: {str(facts)[:500]}"
                self._write()
                continue
            print(f"{time.monotonic() - self.began:.0f} s, {key}: {facts}", flush=True)
            yield key, facts

    def _left(self) -> float:
        return self.chosen.seconds - (time.monotonic() - self.began)

    def _write(self) -> None:
        self.found["seconds"] = round(time.monotonic() - self.began, 1)
        storage.write_json(self.chosen.out / "fair.json", self.found)


def table(found: Facts, name: str) -> list[Facts]:
    """Rows of the table `name`, a contender each: means over its trainings, and their standard deviation."""
    rows = []
    for one, settings in found["chosen"].items():
        runs = [run for run in found["trainings"] if (run["table"], run["contender"]) == (name, one)]
        if not runs:
            continue
        costs = found["costs"].get(one, {})
        row = {
            "": one,
            "parameters": costs.get("parameters"),
            "GFLOP/image": costs.get("GFLOP/image"),
            "learning rate, batch": f"{settings['learning rate']:g}, {settings['batch']}",
            "images seen": round(statistics.mean(run["examples"] for run in runs)),
            "trainings": len(runs),
            "guidance": ", ".join(f"{run['guidance']:g}" for run in runs),
            "evaluations/sample": max(run["evaluations"] for run in runs),
        }
        for which in JUDGES:
            row[f"Fréchet, {which}"] = spread([run[which]["distance"] for run in runs])
            row[f"class, {which}"] = spread([100 * run[which]["accuracy"] for run in runs]) + " %"
        rows.append(row)
    return rows


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of several trainings; of one alone the value."""
    mean = f"{statistics.mean(values):.3g}"
    return f"{mean} ± {statistics.stdev(values):.2g}" if len(values) > 1 else mean


def show(found: Facts, out: Path) -> None:
    """Prints and writes a table, and a picture where matplotlib is installed, for each kind of budget."""
    floors = "; ".join(
        f"{which}: floor {facts['floor']:.3g} (n = {facts['real images in the floor']:,}), accuracy on test images "
        f"{facts['accuracy']:.2%}"
        for which, facts in found["judges"].items()
    )
    for number, name in enumerate(dict.fromkeys(run["table"] for run in found["trainings"])):
        title = f"{name}, {found['arguments']['count']} samples; {floors}; on {found['measured on']}"
        publish("fair" if not number else f"fair-{number}", title, table(found, name), out, partial(_draw, found, name))


def _draw(found: Facts, name: str, axes: Any) -> None:
    field = list(found["chosen"])[::-1]
    for which, marker, colour in zip(JUDGES, "os", ("#0f6b78", "#c2571a"), strict=True):
        runs = [run for run in found["trainings"] if run["table"] == name]
        floor = found["judges"][which]["floor"]
        places = [field.index(run["contender"]) for run in runs]
        axes.scatter([run[which]["distance"] / floor for run in runs], places, marker=marker, color=colour, label=which)
    axes.axvline(1, color="grey", linewidth=1)
    axes.set(xscale="log", xlabel="Fréchet distance in floors (log); each mark is a training")
    axes.set_yticks(range(len(field)), field)
    axes.legend(frameon=False)


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


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--examples", type=int, default=128_000, help="of each training")
    options.add_argument("--select", type=int, default=32_000, help="examples of each short run")
    options.add_argument("--each", type=float, default=0, help="seconds of each training of a second table; 0: none")
    options.add_argument("--count", type=int, default=5000, help="samples of each training")
    options.add_argument("--batches", default="64,256", help="to choose from")
    options.add_argument("--judge_epochs", type=float, default=8)
    options.add_argument("--source", default="mnist", choices=["mnist", "mnist-small", "digits"])
    compare(options, TINY, lambda chosen, place: Comparison(chosen, place).run(), show)


if __name__ == "__main__":
    main()
