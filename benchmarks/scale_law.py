"""Quality against examples, parameters and minutes: what `textdiffusion plan` is fitted to.

    python -m benchmarks.scale_law --modality images --data_dir MNIST --seconds 7200
    python -m benchmarks.scale_law --modality text --data_dir FILE --seconds 7200
    python -m benchmarks.scale_law --modality images --tiny        # every part of it, in a minute
    python -m benchmarks.scale_law --show build/benchmarks/scale-law-text.json  # tables, curves and picture of a run

One training for each network, number of examples and seed, everything else the job's, each with the whole schedule of
its learning rate: points along one long training would have a rate that has not come down. Images have their loss on
validation images and their Fréchet distance above the floor; text has bits per character of test text, the
autoregressive model's and, with an evaluation a token, diffusion's bound.

`scale-law-<modality>.json` is written again after each training; with `--work FOLDER` a run that was cut off goes on.
`scale-law-<modality>-curves.json` is in the form of factory/scale_law.json: what users are told changes with a
commit alone. Seconds are of one process; with `--workers` beside others.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import FREE, Comparison, Key, Task, compare
from benchmarks.fair_tasks import JUDGES, Facts, judged
from benchmarks.fair_text_measures import Sizes
from benchmarks.results import parser, publish
from benchmarks.scale_law_tasks import (
    BATCH,
    IMAGES,
    TEXTS,
    TINY_IMAGES,
    TINY_TEXTS,
    Network,
    image_training,
    text_training,
)
from benchmarks.text import SHARED
from core import storage
from core.modality import run_here
from core.requests import PrepareDataRequest
from factory.plan import Curve, Point, fit

DISTANCE, LOSS, BITS = "Frechet distance above the floor", "validation loss", "bits per character"
METRICS = {"images": (LOSS, DISTANCE), "text": (BITS,)}
EXAMPLES = {"images": "2000,6000,20000,60000", "text": "160,500,1600,5000"}
FIELDS, SOURCES = {"images": IMAGES, "text": TEXTS}, {"images": "mnist", "text": "shakespeare"}
TINY = {"examples": "64,128,256,512", "count": 20, "judge_epochs": 0.3, "seeds": 1}
TINY_FIELDS, TINY_SOURCES = {"images": TINY_IMAGES, "text": TINY_TEXTS}, {"images": "digits", "text": "pydoc"}
TINY_SIZES = Sizes(context=64, depth=1, windows=4, draws=2)


class Trainings(Comparison[Network]):
    """All of one modality, small budgets first."""

    settings, labels = (), ("network", "asked", "seed")
    free = FREE | {"examples"}  # which are among the labels

    def __init__(self, chosen: Namespace, place: Path) -> None:
        self.images, self.file = chosen.modality == "images", f"scale-law-{chosen.modality}.json"
        fields, sources = (TINY_FIELDS, TINY_SOURCES) if chosen.tiny else (FIELDS, SOURCES)
        super().__init__(chosen, place, fields[chosen.modality], ("judges",))
        self.source = sources[chosen.modality] if chosen.tiny else chosen.source or sources[chosen.modality]
        self.found |= {"modality": chosen.modality, "source": self.source}

    def run(self) -> Facts:
        which, chosen = JUDGES[0], self.chosen
        source: Facts = {"source": self.source, "data_dir": None if chosen.tiny else chosen.data_dir}
        if not self.images:
            source |= {"tokenizer": {"kind": "bpe", "vocabulary": 300 if chosen.tiny else 1024}}
        if not (self.place / "dataset").exists():
            run_here(PrepareDataRequest(modality=chosen.modality, data=source, out=self.place / "dataset"))
        if self.images:
            self.do({("judges", which): partial(judged, self.place, which, chosen.judge_epochs, chosen.count)})
        self.do(dict(self._tasks()))
        self.workers.close()
        return self.found

    def _tasks(self) -> Iterator[tuple[Key, Task]]:
        job = "digits" if self.source == "digits" else "mnist-training"
        sizes = TINY_SIZES if self.chosen.tiny else Sizes()
        for seed in range(self.chosen.seeds):
            for examples in map(int, (self.chosen.examples or EXAMPLES[self.chosen.modality]).split(",")):
                for one in self.field:
                    task = (
                        partial(image_training, self.place, job, one, examples, seed, self.chosen.count)
                        if self.images
                        else partial(text_training, self.place, one, examples, seed, sizes)
                    )
                    yield ("training", one.name, examples, seed), task


def curves(found: Facts) -> list[Curve]:
    """A curve for each network and metric that has the points for a law."""
    made = []
    for metric in METRICS[found["modality"]]:
        for network in dict.fromkeys(run["network"] for run in found["trainings"]):
            runs = [run for run in found["trainings"] if run["network"] == network]
            points = [point for run in runs if (point := _point(found, run, metric))]
            if len({point.examples for point in points}) < 4:
                continue
            curve = {
                "data": found["source"],
                "network": network,
                "parameters": runs[0]["parameters"],
                "metric": metric,
                "batch": BATCH if found["modality"] == "images" else SHARED["batch_size"],
                "source": f"benchmarks/scale_law.py --modality {found['modality']}, on {found['measured on']}",
                "points": points,
            }
            made.append(Curve.model_validate(curve))
    return made


def _point(found: Facts, run: Facts, metric: str) -> Point | None:
    """None where a model is no better than none: a distance below its floor has no logarithm."""
    about = {"examples": run["examples"], "seed": run["seed"]}
    if metric != DISTANCE:
        return Point(value=run[metric], **about)
    floor = found["judges"][JUDGES[0]]["floor"]
    return Point(value=run["distance"], floor=floor, **about) if run["distance"] > floor else None


def laws(found: Facts) -> list[Facts]:
    """A row for each curve: its law, and what that says of the ends."""
    rows = []
    for curve in curves(found):
        law, seen = fit(curve.points), [point.examples for point in curve.points]
        rows.append(
            {
                "network": curve.network,
                "parameters": curve.parameters,
                "metric": curve.metric,
                "trainings": len(curve.points),
                "examples": f"{min(seen):,} to {max(seen):,}",
                "floor": law.floor if curve.points[0].floor is None else None,
                "b": law.exponent,
                "residuals": f"{law.spread:.1%}",
                "at most examples": law.at(max(seen))[0],
                "one more training there": "{1:.3g} to {2:.3g}".format(*law.at(max(seen))),
            }
        )
    return rows


def show(found: Facts, out: Path) -> None:
    """Prints and writes trainings, laws, curves and a picture."""
    if not found["trainings"]:
        print(f"no training ended: {found['errors'] or 'more --seconds are needed'}")
        return
    name, made = f"scale-law-{found['modality']}", curves(found)
    judge = found["judges"].get(JUDGES[0])
    about = f"; floor {judge['floor']:.3g}, n = {judge['real images in the floor']:,}" if judge else ""
    title = f"{found['source']}{about}, on {found['measured on']}"
    publish(f"{name}-trainings", f"Trainings: {title}", found["trainings"], out)
    if made:
        grid = (len(METRICS[found["modality"]]), 2)
        publish(name, f"Laws: {title}", laws(found), out, partial(_draw, found), grid)
    storage.write_json(out / f"{name}-curves.json", [curve.model_dump(mode="json") for curve in made])


def _draw(found: Facts, axes: Any) -> None:
    """A row of pictures for each metric: against examples, with the laws, and against minutes at each one's speed."""
    metrics, networks = METRICS[found["modality"]], list(dict.fromkeys(run["network"] for run in found["trainings"]))
    for curve in curves(found):
        runs = [run for run in found["trainings"] if run["network"] == curve.network]
        longest = max(runs, key=lambda run: run["examples"])
        pace = longest["seconds"] / longest["examples"] / 60
        law, label = fit(curve.points), f"{curve.network} ({curve.parameters / 1e6:.2g} M)"
        style = {"color": f"C{networks.index(curve.network)}", "linewidth": 0.8}
        seen = [point.examples for point in curve.points]
        between = np.geomspace(min(seen), max(seen), 50)
        for one, scale in zip(axes[metrics.index(curve.metric)], (1, pace), strict=True):
            values = [(scale * point.examples, point.value - (point.floor or 0)) for point in curve.points]
            one.plot(*zip(*values, strict=True), ".", color=style["color"], label=label)
            one.plot(scale * between, [law.at(examples)[0] for examples in between], **style)
    for row, metric in zip(axes, metrics, strict=True):
        for one, label in zip(row, ("examples", "minutes of training, one thread"), strict=True):
            one.set(xscale="log", yscale="log", xlabel=label)
            for axis in (one.xaxis, one.yaxis):
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter("{x:g}" if axis is one.yaxis and metric != DISTANCE else "")
        row[0].set_ylabel(metric.replace("Frechet", "Fréchet"))
    axes[0, 1].legend(frameon=False, fontsize=6)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--modality", choices=list(METRICS), default="images")
    options.add_argument("--source", choices=["mnist", "mnist-small", "digits", "shakespeare", "pydoc", "file"])
    options.add_argument("--examples", help=f"of each training, separated by commas; default: {EXAMPLES}")
    options.add_argument("--count", type=int, default=1000, help="samples of each training, of images")
    options.add_argument("--judge_epochs", type=float, default=8.0)
    compare(options, TINY, lambda chosen, place: Trainings(chosen, place).run(), show)


if __name__ == "__main__":
    main()
