"""What benchmarks/fair.py gives its processes to do. Each task finds data set and judges under the folder `place`."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import second_judge
from benchmarks.contenders import Budget, Choice, Contender, Images, Labels
from benchmarks.images import cost
from benchmarks.peers import fair
from core.images import metrics
from core.images.dataset import ImageDataset, Split
from core.images.evaluation import REFERENCE
from core.images.judge import Answers, Judge
from core.images.samples import in_proportion
from core.modality import run_here
from core.requests import TrainJudgeRequest

JUDGES = ("pipeline's judge", "second judge")
MARKS = dict(zip(JUDGES, (("o", "#0f6b78"), ("s", "#c2571a")), strict=True))  # in pictures
CHOSEN_BY = 2000  # samples for the choice of guidance
Facts = dict[str, Any]


def contender(name: str) -> Contender:
    return next(one for one in fair() if one.name == name)


def judged(place: Path, which: str, epochs: float, count: int) -> Facts:
    """Trains a judge and notes what real images are to it; its floor for `count` samples, and its accuracy."""
    dataset, out = place / "dataset", place / which
    if which == JUDGES[0]:
        section = {"judge_epochs": epochs}
        run_here(TrainJudgeRequest(modality="images", evaluate=section, dataset=dataset, out=out))
    else:
        second_judge.train(dataset, out, epochs)
    data, judge = ImageDataset.open(dataset), _judge(place, which)
    mixture = np.ones(data.classes)
    real: dict[Any, Answers] = {}
    for split, most in (("train", REFERENCE), ("validation", data.count("validation")), ("test", count)):
        chosen = in_proportion(data.labels(split), mixture, most, shuffled=True)  # type: ignore[arg-type]
        real[split] = judge.examine(data.images(split)[np.sort(chosen)])  # type: ignore[arg-type]
    np.savez(place / f"{which}.npz", train=real["train"].features, validation=real["validation"].features)
    every = judge.examine(data.images("test"))
    return {
        "floor": metrics.frechet_distance(real["test"].features, real["train"].features),
        "real images in the floor": len(real["test"].features),
        "accuracy": float((every.classes == data.labels("test")).mean()),
    }


def short(place: Path, name: str, choice: Choice, examples: int) -> Facts:
    """The loss on validation images after a short training."""
    trained = contender(name).train(place / "dataset", Budget(examples), None, choice)
    return {"loss": trained.loss(), "seconds": trained.seconds}


def full(place: Path, name: str, choice: Choice, examples: int, count: int) -> Facts:
    """A training, its guidance chosen on validation images, and both judges' verdict on `count` samples."""
    one, labels = contender(name), np.arange(count) % ImageDataset.open(place / "dataset", verify=False).classes
    trained = one.train(place / "dataset", Budget(examples), None, choice)
    began = time.monotonic()

    def drawn(weight: float, count: int, seed: int) -> Any:
        return trained.draw(labels[:count], weight, seed)

    tried = {}
    for weight in one.guidances if len(one.guidances) > 1 else ():
        chosen_by = drawn(weight, min(CHOSEN_BY, count), 1)
        tried[weight] = verdict(place, JUDGES[1], chosen_by, labels[: len(chosen_by)], "validation")["distance"]
    weight = min(tried, key=lambda weight: tried[weight]) if tried else one.guidances[0]
    images = drawn(weight, count, 0)
    facts: Facts = {
        "examples": trained.examples,
        "loss": trained.loss(),
        "guidance": weight,
        "evaluations": one.evaluations(weight),
        "distances to validation by guidance": {str(key): value for key, value in tried.items()},
        "training, s": round(trained.seconds, 2),
        "drawing, s": round(time.monotonic() - began, 2),
    }
    return facts | {which: verdict(place, which, images, labels) for which in JUDGES}


def verdict(place: Path, which: str, images: Images, labels: Labels, split: Split = "train") -> Facts:
    """A judge's distance of images to real ones of a split, and the share that is of its class."""
    answers = _judge(place, which).examine(images)
    distance = metrics.frechet_distance(answers.features, _real(place, which)[split])
    return {"distance": distance, "accuracy": float((answers.classes == labels).mean())}


def costs(place: Path, name: str) -> Facts:
    parameters, gflop = cost(contender(name), ImageDataset.open(place / "dataset", verify=False))
    return {"parameters": parameters, "GFLOP/image": gflop}


@cache
def _judge(place: Path, which: str) -> Judge:
    return Judge.open(place / which) if which == JUDGES[0] else second_judge.load(place / "dataset", place / which)


@cache
def _real(place: Path, which: str) -> dict[str, Any]:
    with np.load(place / f"{which}.npz") as arrays:
        return dict(arrays)
