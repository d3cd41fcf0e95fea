"""Two evaluations an image: a student that learns where the paths of a trained teacher end, and what else has two.

    python -m benchmarks.few_steps --model RUN/steps/train --dataset RUN/steps/prepare-data \
        --judge RUN/steps/train-judge [--paths 2000] [--examples 10000]

The student is that of `model.few_steps` (core/images/few_steps.py), trained from a model that is there. Guidance is in
the ends of the paths, so a sample costs two evaluations of one network where the teacher has two or three networks in
each. One training, whose seed is not the teacher's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import parser, publish, work_folder
from core.config import TrainConfig
from core.images import metrics
from core.images import sampling as drawing
from core.images.config import FewSteps, ImageSample
from core.images.dataset import ImageDataset, Split
from core.images.evaluation import REFERENCE
from core.images.few_steps import FewStepsObjective
from core.images.judge import Judge
from core.images.model import TrainedModel, load_model
from core.images.samples import in_proportion
from core.processes.world import World, own_device
from core.storage.checkpoint import CheckpointStore
from core.training.loop import fit

Images = NDArray[np.uint8]
Row = tuple[str, TrainedModel, ImageSample]


class Yardstick:
    """The judge's distance of samples to training images, at the count at which test images give the floor."""

    def __init__(self, dataset: Path, judge: Path) -> None:
        data = ImageDataset.open(dataset)
        self.judge, mixture = Judge.open(judge), np.ones(data.classes)

        def features(split: Split) -> NDArray[np.float64]:
            chosen = in_proportion(data.labels(split), mixture, REFERENCE, shuffled=True)
            return self.judge.examine(data.images(split)[np.sort(chosen)]).features

        self.train, test = features("train"), features("test")
        self.count, self.floor = len(test), metrics.frechet_distance(test, self.train)

    def of(self, images: Images, labels: NDArray[np.int64]) -> dict[str, Any]:
        """Mean over disjoint groups of as many as the floor is of; labels come in turn, so each has all classes."""
        answers = self.judge.examine(images)
        groups = [answers.features[i : i + self.count] for i in range(0, len(images) - self.count + 1, self.count)]
        distance = float(np.mean([metrics.frechet_distance(group, self.train) for group in groups]))
        return {
            "Fréchet": round(distance, 3),
            "floors": round(distance / self.floor, 2),
            "class": f"{(answers.classes == labels).mean():.1%}",
        }


def rows_of(teacher: TrainedModel, student: TrainedModel, few: FewSteps, alone: bool) -> Iterator[Row]:
    """(name, model, settings): the teacher by its paths, with noise on the way and in two steps; the student."""
    guided = {"guidance": few.guidance, "guidance_low": few.guidance_low, "guidance_high": few.guidance_high}
    guided |= {"autoguidance": few.autoguidance, "sigma_max": few.top, "steps": few.steps}
    for name, changes in {
        "teacher, its paths": {**guided, "sampler": "dpmpp", "start": "estimate"},
        "teacher, noise on the way": {**guided, "sampler": "dpmpp_sde", "start": "estimate"},
        "teacher, Heun": {"sampler": "heun", "steps": 2, "sigma_max": few.top},
        "teacher, DPM-Solver++(2M)": {"sampler": "dpmpp", "steps": 2, "sigma_max": few.top},
        "teacher, the same with guidance": {**guided, "sampler": "dpmpp", "steps": 2},
    }.items():
        if not alone:
            yield name, teacher, ImageSample.model_validate({**changes, "batch_size": 250})
    for count in (1, 2):
        manner = {"sampler": "ddpm", "steps": count, "sigma_max": few.top, "sigma_min": few.middle, "batch_size": 250}
        yield f"student, {count} step{'s'[: count - 1]}", student, ImageSample.model_validate(manner)


def main() -> None:
    options = parser(__doc__)
    for name, what in (("model", "train"), ("dataset", "prepare-data"), ("judge", "train-judge")):
        options.add_argument(f"--{name}", type=Path, required=True, help=f"folder that {what} wrote")
    options.add_argument("--paths", type=int, default=2000, help="of the teacher")
    options.add_argument("--examples", type=int, default=10_000, help="of the student's training, a path each")
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--rate", type=float, default=0.01, help="Muon's learning rate")
    options.add_argument("--count", type=int, default=1000, help="samples of each row")
    options.add_argument("--seed", type=int, default=1, help="of the student's training")
    options.add_argument("--student_only", action="store_true", help="without the rows of the teacher")
    chosen = options.parse_args()
    trained, yardstick = load_model(chosen.model, own_device()), Yardstick(chosen.dataset, chosen.judge)
    if chosen.count < yardstick.count:
        raise SystemExit(f"--count: found {chosen.count}; allowed: from {yardstick.count} on, the images of the floor")
    labels = np.arange(chosen.count) % len(trained.shape.class_names)
    few = FewSteps(paths=chosen.paths, autoguidance=1.25 if trained.guide else 1.0)
    teacher = replace(trained, config=trained.config.model_copy(update={"few_steps": few}))
    settings = TrainConfig(
        examples=chosen.examples, batch_size=chosen.batch, seed=chosen.seed, optimizer="muon",
        muon_learning_rate=chosen.rate, learning_rate=1e-3, warmup_examples=1000, validate_every=0.25,
    )  # fmt: skip
    began = time.monotonic()
    objective = FewStepsObjective(teacher, own_device(), chosen.seed)
    with work_folder(None) as folder:
        result = fit(objective, settings, CheckpointStore(str(folder)), World(0, 1, own_device()))
    seconds = time.monotonic() - began
    student = replace(teacher, network=result.model, guide=None)
    rows = []
    for name, model, manner in rows_of(teacher, student, few, chosen.student_only):
        sigmas = drawing.choose_sigmas(manner, model.process)
        images = drawing.draw(model, manner, labels, sigmas, World(0, 1, own_device())).images
        rows.append({"": name, "evaluations": drawing.evaluations(manner), **yardstick.of(images, labels)})
        print(rows[-1], flush=True)
    title = (
        f"{chosen.count} samples, floor {yardstick.floor:.3f} (n = {yardstick.count}), one training of"
        f" {chosen.examples} examples on {chosen.paths} paths, {seconds:.0f} s with the paths"
    )
    publish("few-steps", title, rows, chosen.out)


if __name__ == "__main__":
    main()
