"""Right classes against likeness: what guidance, feedback and drawing again do to trained models, by two judges.

    python -m benchmarks.guidance --models RUN/steps/train,RUN/steps/train --data_dir MNIST \
        [--way feedback=0.1] [--way guidance=1.3,redraw=0.04]
    python -m benchmarks.guidance --show build/benchmarks/guidance.json      # table and picture of what is there

Every model is a training of one job, whose section `sample` each `--way` changes. Both judges are trained afresh, on
all training images of the source; `guidance.json` is written after each draw.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import spread
from benchmarks.fair_tasks import JUDGES, Facts, judged, verdict
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
MARKS = dict(zip(JUDGES, (("o", "#0f6b78"), ("s", "#c2571a")), strict=True))


def changed(text: str) -> dict[str, float]:
    """`feedback=0.1,redraw=0.04` as settings."""
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        return {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected NAME=NUMBER,...") from None


def measured(chosen: argparse.Namespace, place: Path) -> Facts:
    """What every model has by every way, judged; written to guidance.json on the way."""
    where = {"source": chosen.source, "data_dir": chosen.data_dir if chosen.source == "mnist" else None}
    run_here(PrepareDataRequest(modality="images", data=where, out=place / "dataset"))
    found: Facts = {"count": chosen.count, "draws": []}
    found["judges"] = {which: judged(place, which, chosen.judge_epochs, chosen.count) for which in JUDGES}
    job = load_job(chosen.job)
    assert isinstance(job, ImageTrainingJob)
    for way in [{}, *chosen.way]:
        section = {**job.sample.model_dump(mode="json"), "count": chosen.count, **way}
        settings = validate(ImageSample, section, "sample")
        for number, folder in enumerate(chosen.models):
            trained = load_model(folder, own_device())
            labels = drawing.choose_labels(settings, trained)
            sigmas = drawing.choose_sigmas(settings, trained.process)
            images = drawing.draw(trained, settings, labels, sigmas, World(0, 1, own_device())).images
            one = {"way": name_of(way), "model": number, "evaluations": drawing.evaluations(settings)}
            found["draws"].append(one | {which: verdict(place, which, images, labels) for which in JUDGES})
            storage.write_json(chosen.out / "guidance.json", found)
            print(found["draws"][-1], flush=True)
    return found


def name_of(way: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in way.items()) or PLAIN


def table(found: Facts) -> list[Facts]:
    """Rows, a way each: means over models, and their standard deviation."""
    rows = []
    for way in ways(found):
        draws = [one for one in found["draws"] if one["way"] == way]
        row: Facts = {"": way, "evaluations": draws[0]["evaluations"], "trainings": len(draws)}
        for which in JUDGES:
            row[f"floors, {which}"] = spread([_floors(found, which, one) for one in draws])
            row[f"class, {which}"] = spread([100 * one[which]["accuracy"] for one in draws]) + " %"
        rows.append(row)
    return rows


def ways(found: Facts) -> Sequence[str]:
    return list(dict.fromkeys(one["way"] for one in found["draws"]))


def _floors(found: Facts, which: str, one: Facts) -> float:
    return float(one[which]["distance"] / found["judges"][which]["floor"])


def show(found: Facts, out: Path) -> None:
    """Prints and writes the table, and a picture where matplotlib is installed."""
    publish("guidance", f"{found['count']:,} samples of each", table(found), out, partial(_draw, found))


def _draw(found: Facts, axes: Any) -> None:
    """A mark a way, the mean over trainings; thin lines lead each training from the first way to the others."""
    order = ways(found)
    for which, (marker, colour) in MARKS.items():
        points = np.array(
            [
                [
                    (_floors(found, which, one), 100 * one[which]["accuracy"])
                    for one in found["draws"]
                    if one["way"] == way
                ]
                for way in order
            ]
        )  # [ways, trainings, 2]
        for first, *others in points.transpose(1, 0, 2):
            for other in others:
                axes.plot(*zip(first, other, strict=True), color=colour, alpha=0.3, linewidth=1)
        means = points.mean(1)
        axes.scatter(*means.T, marker=marker, s=45, color=colour, label=which)
        for number, (way, place) in enumerate(zip(order, means, strict=True)):
            side, across = ("right", -7) if number % 2 else ("left", 7)
            axes.annotate(way, place, (across, -3), textcoords="offset points", fontsize=8, ha=side)
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
