"""Fair peers on MNIST: settings chosen on validation, three trainings each, judged on test by two judges.

    python -m benchmarks.fair --data_dir MNIST --seconds 400   # one GPU; --seconds 40000 for two cores
    python -m benchmarks.fair --tiny                                             # every part of it, in a minute
    python -m benchmarks.fair --show build/benchmarks/fair.json                  # tables and picture of what is there

Each contender has four learning rates and two batches: the pair with the lowest loss on validation images after a
short run (`--select` examples) is taken. Then every contender is trained with the first seed at equal examples, then
with the second, and so on; with `--each`, again at equal seconds, by its speed while nothing else runs. Each
training chooses its weight of guidance of four by the second judge's distance to *validation* images, with other
noise than the samples that are reported. Those are compared with training images, and so are test images, the floor.

`fair.json` is written again after each training, so a run that is cut off at `--seconds` still gives numbers. Nothing
is downloaded. On a GPU several trainings share it (`--workers`), and seconds of those say nothing.
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.comparison import Comparison, Key, Task, compare, spread
from benchmarks.contenders import Choice, Contender
from benchmarks.fair_tasks import JUDGES, MARKS, Facts, costs, full, judged, short
from benchmarks.images import speeds
from benchmarks.peers import fair
from benchmarks.results import parser, publish
from core.modality import run_here
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


class Images(Comparison[Contender]):
    """All of it, in an order in which a run that is cut off has one seed of everyone first."""

    file, settings, labels = "fair.json", ("learning rate", "batch"), ("table", "contender", "seed")

    def __init__(self, chosen: Namespace, place: Path) -> None:
        super().__init__(chosen, place, fair(), ("judges", "costs"))
        self.batches = [int(batch) for batch in chosen.batches.split(",")]

    def run(self) -> Facts:
        self.prepare()
        self.select()
        missing = [which for which in JUDGES if which not in self.found["judges"]]
        if missing:
            raise SystemExit(f"{' and '.join(missing)}: not trained in {SELECTION:.0%} of {self.chosen.seconds:.0f} s")
        self.train("equal examples", {one.name: self.chosen.examples for one in self.field})
        if self.chosen.each and self.chosen.seconds - (time.monotonic() - self.began) > self.chosen.each:
            self.train(f"{self.chosen.each:g} s each", self.speeds())
        self.workers.close()
        return self.found

    def prepare(self) -> None:
        source = {"source": self.chosen.source, "data_dir": self.chosen.data_dir if not self.chosen.tiny else None}
        run_here(PrepareDataRequest(modality="images", data=source, out=self.place / "dataset"))

    def middle(self, one: Contender) -> Facts:
        return {"learning rate": one.rates[(len(one.rates) - 1) // 2], "batch": self.batches[0]}

    def select(self) -> None:
        """Judges, costs and short runs; then every contender's learning rate and batch."""
        tasks: dict[Key, Task] = {
            ("judges", which): partial(judged, self.place, which, self.chosen.judge_epochs, self.chosen.count)
            for which in JUDGES
        }
        rates = 1 if self.chosen.tiny else len(self.field[0].rates)
        choices = [(rate, batch) for rate in range(rates) for batch in self.batches]
        for rate, batch in choices if len(choices) > 1 else []:
            for one in self.field:
                choice = Choice(one.rates[rate], batch)
                task = partial(short, self.place, one.name, choice, self.chosen.select)
                tasks["short", one.name, choice.learning_rate, batch] = task
        tasks |= {("costs", one.name): partial(costs, self.place, one.name) for one in self.field}
        self.do(tasks, SELECTION)
        self.choose(self.field)

    def train(self, table: str, examples: dict[str, int]) -> None:
        """Every contender with every seed, the first seed of all first."""
        tasks: dict[Key, Task] = {}
        for seed in range(self.chosen.seeds):
            for one in self.field:
                settings = self.found["chosen"][one.name]
                choice = Choice(settings["learning rate"], settings["batch"], seed)
                task = partial(full, self.place, one.name, choice, examples[one.name], self.chosen.count)
                tasks["training", table, one.name, seed] = task
        self.do(tasks)

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
    for which, (marker, colour) in MARKS.items():
        runs = [run for run in found["trainings"] if run["table"] == name]
        floor = found["judges"][which]["floor"]
        places = [field.index(run["contender"]) for run in runs]
        axes.scatter([run[which]["distance"] / floor for run in runs], places, marker=marker, color=colour, label=which)
    axes.axvline(1, color="grey", linewidth=1)
    axes.set(xscale="log", xlabel="Fréchet distance in floors (log); each mark is a training")
    axes.set_yticks(range(len(field)), field)
    axes.legend(frameon=False)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--examples", type=int, default=128_000, help="of each training")
    options.add_argument("--select", type=int, default=32_000, help="examples of each short run")
    options.add_argument("--each", type=float, default=0.0, help="seconds of each training of a second table; 0: none")
    options.add_argument("--count", type=int, default=5000, help="samples of each training")
    options.add_argument("--batches", default="64,256", help="to choose from")
    options.add_argument("--judge_epochs", type=float, default=8.0)
    options.add_argument("--source", default="mnist", choices=["mnist", "mnist-small", "digits"])
    compare(options, TINY, lambda chosen, place: Images(chosen, place).run(), show)


if __name__ == "__main__":
    main()
