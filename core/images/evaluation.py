"""Samples measured against real images by the judge: every metric with its floor, count and judge.

The floor answers "how good could it be": the same number for real images in the place of the samples, at the same
count n. What is measured against training images (Fréchet and kernel distance, precision, recall) has test images in
their place; what is measured against test images (`frechet_distance_test`, `kernel_distance_test`) has training images.
Real images are taken in the proportions of the classes that were asked for, so n is bounded by the rarest class of the
test split; with several times n samples the value is the mean over disjoint groups of n. Fréchet distance falls with
n even for perfect samples, so it is only comparable at equal n.

    metrics.json, evaluation.json    an `Evaluation` (core/evaluation.py)
    neighbours.npz     samples with their nearest training images; distances, and the test split's own
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import storage
from core.errors import UserError
from core.evaluation import Evaluation
from core.images import measures, pictures
from core.images.config import ImageEvaluate
from core.images.contents import repeats
from core.images.dataset import ImageDataset
from core.images.judge import Judge, wilson
from core.images.measures import Sides
from core.images.neighbours import Neighbours, closest_of_each_class, nearest_images
from core.images.samples import Samples, in_proportion, read_samples
from core.metrics import key_of
from core.processes.world import SINGLE_PROCESS, World, by_first

VERSION = 2  # of what the metrics mean; a change makes evaluation keys differ
REFERENCE = 20_000  # training images, at most, whose features stand for the real ones
PIXEL_QUERIES = 1000  # samples, and test images, whose nearest training image is looked up


def evaluate(
    config: ImageEvaluate,
    dataset: Path,
    judge: Path,
    model: Path,
    samples: Path,
    out: Path,
    world: World = SINGLE_PROCESS,
) -> dict[str, Any]:
    """Measures the samples folder and writes the evaluation folder `out`; returns flat metadata.

    What takes time is divided over `world`; its first process writes.

    Raises:
        UserError: samples, judge and data set do not belong together, or one of them is damaged.
    """
    data, opened = ImageDataset.open(dataset), Judge.open(judge)
    if opened.description["content_sha256"] != data.content_sha256:
        raise UserError(
            f"{judge / 'judge.json'}: trained on the data {opened.description['content_sha256'][:12]}.., "
            f"{dataset} holds {data.content_sha256[:12]}..; run train-judge on it"
        )
    drawn = read_samples(samples, data, config.count).interleaved()
    compared = sides_of(config, data, opened, drawn, world)
    n_pixels = min(PIXEL_QUERIES, len(drawn.images))
    training = data.images("train")
    repeated = repeats(training)
    near = nearest_images(drawn.images[:n_pixels], training, repeated, world)
    real = nearest_images(data.images("test")[compared.matched[:n_pixels]], training, repeated, world)
    measured = Evaluation(
        modality="images",
        metrics={
            **measures.features(config.nearest, compared),
            **measures.classes(compared),
            **measures.memorisation(near, real),
            **measures.redrawn(drawn.sampling),
        },
        **_facts(compared, model),
        evaluation_key=evaluation_key(config, data, opened, drawn),
    )

    def write() -> dict[str, Any]:
        with storage.atomic_folder(out, "metrics.json") as folder:
            measured.write(folder)
            storage.write_bytes(folder / "neighbours.npz", _neighbours(config, compared, near, real))
        return measured.metadata()

    return by_first(write, world)


def evaluation_key(config: ImageEvaluate, data: ImageDataset, judge: Judge, samples: Samples) -> str:
    """Equal for two evaluations whose numbers may be compared: same data, judge, sampling settings and measures."""
    settings = config.model_dump(mode="json", include={"count", "nearest"})
    return key_of(VERSION, data.content_sha256, judge.sha256, samples.sampling.terms(), settings)


def sides_of(config: ImageEvaluate, data: ImageDataset, judge: Judge, samples: Samples, world: World) -> Sides:
    """Samples beside real images in their mixture of classes, and what the judge says of each.

    Raises:
        UserError: the test split has too few images of these classes.
    """
    mixture = expected_classes(samples.labels, np.asarray(data.metadata["class_histogram"]["train"]))
    reference = in_proportion(data.labels("train"), mixture, REFERENCE, shuffled=True)
    matched = in_proportion(data.labels("test"), mixture, data.count("test"), shuffled=True)
    if min(len(reference), len(matched)) < 2:
        raise UserError("evaluate: the test split has too few images of the classes that were sampled; add test images")
    training = data.images("train")[np.sort(reference)]
    return Sides(
        data=data,
        judge=judge,
        samples=samples,
        mixture=mixture,
        generated=judge.examine(samples.images, config.batch_size, world),
        train=judge.examine(training, config.batch_size, world).rows(_rank(reference)),
        test=judge.examine(data.images("test"), config.batch_size, world),
        test_labels=data.labels("test"),
        matched=matched,
        world=world,
    )


def expected_classes(labels: NDArray[np.int64], training: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many of samples with `labels` are to be of each class [K]: as asked for, and those without a class (-1) as
    the `training` images are, of which there are that many of each class [K]."""
    asked = np.bincount(labels[labels >= 0], minlength=len(training)).astype(np.float64)
    return asked + (labels < 0).sum() * training / training.sum()


def _rank(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rank of each value among them: undoes a sort that was made for reading from disk in order."""
    return np.argsort(np.argsort(values))


# --- everything else


def _facts(sides: Sides, model: Path) -> dict[str, Any]:
    classes, labels = sides.data.classes, sides.samples.labels
    asked = (labels >= 0) & (classes > 1)
    right = sides.generated.classes == labels
    per_class = [float(right[labels == c].mean()) if (labels == c).any() else None for c in range(classes)]
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels[asked], sides.generated.classes[asked]), 1)
    count = int(asked.sum())
    return {
        "sample": sides.samples.sampling.terms(),
        "evaluations": sides.samples.sampling.nfe,
        "count": len(labels),
        "class_names": sides.data.class_names,
        "per_class_accuracy": per_class if count else None,
        "class_accuracy_interval": list(wilson(int(right[asked].sum()), count)) if count else None,
        "confusion": confusion.tolist() if count else None,  # rows: asked for, columns: read by the judge
        "class_histogram": {
            "samples": np.bincount(sides.generated.classes, minlength=classes).tolist(),
            "real": np.bincount(sides.test_labels[sides.matched], minlength=classes).tolist(),
        },
        "mean_confidence": {
            "samples": sides.generated.confidence,
            "real": sides.of_test(sides.test.probabilities.max(1), sides.mixture),
        },
        "validation_loss": validation_loss(model),
        "judge": {key: sides.judge.description[key] for key in ("sha256", "accuracy", "n", "interval")},
        "data_sha256": sides.data.content_sha256,
        "weights_sha256": sides.samples.sampling.weights_sha256,
    }


def validation_loss(model: Path) -> dict[str, float] | None:
    """The last validation in the model's train_log.jsonl, `loss` and `loss/sigma=..`; None if there is none."""
    path = model / "train_log.jsonl"
    if not path.is_file():
        return None
    rows = storage.read_json_lines(path)
    losses = [row["validation"] for row in rows if isinstance(row, dict) and "validation" in row]
    try:
        return {str(name): float(value) for name, value in losses[-1].items()} if losses else None
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{path}: validation: expected losses by name, found {str(losses[-1])[:60]}") from None


def _neighbours(config: ImageEvaluate, sides: Sides, near: Neighbours, real: Neighbours) -> bytes:
    labels = sides.samples.labels[: len(near.distances)]
    read = np.where(labels >= 0, labels, sides.generated.classes[: len(labels)])
    shown = closest_of_each_class(near.distances, read, config.neighbours)
    places = near.indices[shown]
    return pictures.npz(
        samples=sides.samples.images[shown],
        labels=labels[shown],
        neighbours=np.asarray(sides.data.images("train")[places]),
        neighbour_labels=sides.data.labels("train")[places],
        pair_distances=near.distances[shown],
        distances=near.distances,
        test_distances=real.distances,
    )
