"""Right classes against likeness: what guidance, feedback and drawing again do to trained models, by two judges.

    python -m benchmarks.guidance --models RUN/steps/train,RUN/steps/train --data_dir MNIST \
        [--way feedback=0.1] [--way guidance=1.3,redraw=0.04]
    python -m benchmarks.guidance --show build/benchmarks/guidance.json      # table and picture of what is there

Every model is a training of one job, whose section `sample` each `--way` changes. Both judges are trained afresh, on
all training images of the source; `guidance.json` is written after each draw.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import spread
from benchmarks.fair_tasks import JUDGES, MARKS, Facts, judged, verdict
from benchmarks.results import parser, publish, work_folder
from core import storage
from core.config import validate
from core.images import sampling as drawing
from core.images.config import ImageSample
from core.images.model import load_model
from core.modality import run_here
from core.processes.world import World, own_device
from core.requests import PrepareDataRequest
from factory.job import ImageTrainingJob
from pipelines.jobs import load_job

PLAIN = "the job's"


def changed(text: str) -> dict[str, float]:
    """`feedback=0.1,redraw=0.04` as settings."""
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        return {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected NAME=NUMBER,...") from None


def measured(chosen: argparse.Namespace, place: Path) -> Facts:
    """What every model has by every way, judged; written to guidance.json on the way."""
    job = load_job(chosen.job)
    assert isinstance(job, ImageTrainingJob)
    plain = job.sample.model_dump(mode="json") | {"count": chosen.count}
    ways = {name_of(way): validate(ImageSample, plain | way, "sample") for way in [{}, *chosen.way]}
    models = [load_model(folder, own_device()) for folder in chosen.models]
    where = {"source": chosen.source, "data_dir": chosen.data_dir if chosen.source == "mnist" else None}
    run_here(PrepareDataRequest(modality="images", data=where, out=place / "dataset"))
    found: Facts = {"count": chosen.count, "draws": []}
    found["judges"] = {which: judged(place, which, chosen.judge_epochs, chosen.count) for which in JUDGES}
    for name, settings in ways.items():
        for number, trained in enumerate(models):
            labels = drawing.choose_labels(settings, trained)
            sigmas = drawing.choose_sigmas(settings, trained.process)
            images = drawing.draw(trained, settings, labels, sigmas, World(0, 1, own_device())).images
            one = {"way": name, "model": number, "evaluations": drawing.evaluations(settings)}
            found["draws"].append(one | {which: verdict(place, which, images, labels) for which in JUDGES})
            storage.write_json(chosen.out / "guidance.json", found)
            print(found["draws"][-1], flush=True)
    return found


def name_of(way: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in way.items()) or PLAIN


def places(found: Facts, which: str) -> dict[str, list[tuple[float, float]]]:
    """Distance in floors and class accuracy in percent of each training, by way."""
    floor, points = found["judges"][which]["floor"], dict[str, list[tuple[float, float]]]()
    for one in found["draws"]:
        points.setdefault(one["way"], []).append((one[which]["distance"] / floor, 100 * one[which]["accuracy"]))
    return points


def table(found: Facts) -> list[Facts]:
    """Rows, a way each: means over models, and their standard deviation."""
    rows: dict[str, Facts] = {one["way"]: {"": one["way"], "evaluations": one["evaluations"]} for one in found["draws"]}
    for which in JUDGES:
        for way, points in places(found, which).items():
            floors, right = zip(*points, strict=True)
            rows[way] |= {"trainings": len(points), f"floors, {which}": spread(floors)}
            rows[way] |= {f"class, {which}": f"{spread(right)} %"}
    return list(rows.values())


def show(found: Facts, out: Path) -> None:
    """Prints and writes the table, and a picture where matplotlib is installed."""
    publish("guidance", f"{found['count']:,} samples of each", table(found), out, partial(_draw, found))


def _draw(found: Facts, axes: Any) -> None:
    """A mark a way, the mean over trainings; thin lines lead each training from the first way to the others."""
    for which, (marker, colour) in MARKS.items():
        points = places(found, which)
        first = next(iter(points.values()))
        for number, (way, trainings) in enumerate(points.items()):
            for line in zip(first, trainings, strict=False):  # of a way that was cut off there are fewer
                axes.plot(*zip(*line, strict=True), color=colour, alpha=0.3, linewidth=1)
            mean = np.mean(trainings, axis=0)
            axes.scatter(*mean, marker=marker, s=45, color=colour, label=None if number else which)
            side, across = ("right", -7) if number % 2 else ("left", 7)
            axes.annotate(way, mean, (across, -3), textcoords="offset points", fontsize=8, ha=side)
    axes.set(xlabel="Fréchet distance in floors; lines are trainings", ylabel="class accuracy, %")
    axes.legend(frameon=False, loc="lower right")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--models", type=lambda text: text.split(","), default=[], help="folders, with commas")
    options.add_argument("--way", type=changed, action="append", default=[], help="NAME=NUMBER,... of section sample")
    options.add_argument("--job", default="mnist-training", help="whose section sample the ways change")
    options.add_argument("--source", default="mnist", choices=["mnist", "mnist-small", "digits"])
    options.add_argument("--count", type=int, default=5000)
    options.add_argument("--judge_epochs", type=float, default=8.0)
    options.add_argument("--show", type=Path, help="a guidance.json; measures nothing")
    chosen = options.parse_args()
    if chosen.show:
        show(storage.read_json(chosen.show), chosen.out)
        return
    if not chosen.models:
        options.error("--models: name the folders of trained models")
    with work_folder(None) as place:
        show(measured(chosen, place), chosen.out)


if __name__ == "__main__":
    main()
