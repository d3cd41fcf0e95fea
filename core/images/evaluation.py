"""Samples measured against real images by the judge: every metric with its floor, count and judge.

The floor answers "how good could it be": the same number for real test images in the place of the samples, at the
same count n. Fréchet distance, kernel distance, precision and recall compare n images with training images. Real
images are taken in the proportions of the classes that were asked for, so n is bounded by the rarest class of the
test split; with several times n samples the value is the mean over disjoint groups of n. Fréchet distance falls with
n even for perfect samples, so it is only comparable at equal n.

    metrics.json, evaluation.json    an `Evaluation` (core/evaluation.py)
    neighbours.npz     samples with their nearest training images; distances, and the test split's own
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import storage
from core.errors import UserError
from core.evaluation import Evaluation, key_of
from core.images import glossary, metrics
from core.images.config import ImageEvaluate
from core.images.dataset import ImageDataset
from core.images.judge import FEATURES, Answers, Judge, wilson
from core.images.neighbours import Neighbours, closest_of_each_class, nearest_images
from core.images.samples import Samples, in_proportion, read_samples
from core.metrics import Metric
from core.processes import parts as parallel
from core.processes.world import SINGLE_PROCESS, World, by_first

VERSION = 1  # of what the metrics mean; a change makes evaluation keys differ
REFERENCE = 20_000  # training images, at most, whose features stand for the real ones
PIXEL_QUERIES = 1000  # samples, and test images, whose nearest training image is looked up
Measured = dict[str, Metric]


@dataclass(frozen=True)
class _Sides:
    """Samples and real images, each with what the judge says of them; every contiguous part has the same classes."""

    data: ImageDataset
    judge: Judge
    samples: Samples
    generated: Answers
    train: Answers  # in the samples' class proportions
    test: Answers  # of the whole test split
    test_labels: NDArray[np.int64]
    matched: NDArray[np.int64]  # indices into test, in the samples' class proportions
    world: World

    @property
    def n(self) -> int:
        """Images on a side, wherever a floor is to be comparable."""
        return min(len(self.samples.images), len(self.matched))

    def groups(self) -> list[NDArray[np.float64]]:
        """The samples' features in disjoint groups of n."""
        features, n = self.generated.features, self.n
        return [features[start : start + n] for start in range(0, len(features) - n + 1, n)]


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
    found = _measure(config, data, opened, drawn, world)
    n_pixels = min(PIXEL_QUERIES, len(drawn.images))
    near = nearest_images(drawn.images[:n_pixels], data.images("train"), world)
    real = nearest_images(data.images("test")[found.matched[:n_pixels]], data.images("train"), world)
    measured = Evaluation(
        modality="images",
        metrics={**_features(config, found), **_classes(found), **_memorisation(near, real)},
        **_facts(found, model),
        evaluation_key=evaluation_key(config, data, opened, drawn),
    )

    def write() -> dict[str, Any]:
        with storage.atomic_folder(out, "metrics.json") as folder:
            measured.write(folder)
            storage.write_bytes(folder / "neighbours.npz", _neighbours(config, found, near, real))
        return measured.metadata()

    return by_first(write, world)


def evaluation_key(config: ImageEvaluate, data: ImageDataset, judge: Judge, samples: Samples) -> str:
    """Equal for two evaluations whose numbers may be compared: same data, judge, sampling settings and measures."""
    settings = config.model_dump(mode="json", include={"count", "nearest"})
    return key_of(VERSION, data.content_sha256, judge.sha256, samples.sampling.terms(), settings)


def _measure(config: ImageEvaluate, data: ImageDataset, judge: Judge, samples: Samples, world: World) -> _Sides:
    if (samples.labels >= 0).all():
        shares = np.bincount(samples.labels, minlength=data.classes)
    else:
        shares = np.asarray(data.metadata["class_histogram"]["train"])
    reference = in_proportion(data.labels("train"), shares, REFERENCE, shuffled=True)
    matched = in_proportion(data.labels("test"), shares, data.count("test"), shuffled=True)
    if min(len(reference), len(matched)) < 2:
        raise UserError("evaluate: the test split has too few images of the classes that were sampled; add test images")
    training = data.images("train")[np.sort(reference)]
    return _Sides(
        data=data,
        judge=judge,
        samples=samples,
        generated=judge.examine(samples.images, config.batch_size, world),
        train=judge.examine(training, config.batch_size, world).rows(_rank(reference)),
        test=judge.examine(data.images("test"), config.batch_size, world),
        test_labels=data.labels("test"),
        matched=matched,
        world=world,
    )


def _rank(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rank of each value among them: undoes a sort that was made for reading from disk in order."""
    return np.argsort(np.argsort(values))


# --- metrics


def _features(config: ImageEvaluate, found: _Sides) -> Measured:
    n, k = found.n, config.nearest
    real, train = found.test.features[found.matched[:n]], found.train.features
    m, judge = min(n, len(train)), found.judge.sha256
    sides = [*found.groups(), real]  # the last one gives the floors

    def frechet(side: NDArray[np.float64]) -> Any:
        return metrics.frechet_distance(side, train)

    def kernel(side: NDArray[np.float64]) -> Any:
        estimate = metrics.kernel_distance(side, train)
        return [estimate.value, estimate.sd]

    def balls(side: NDArray[np.float64]) -> Any:
        return list(metrics.precision_recall(train[:m], side[:m], k)) if m > k else [None, None]

    def errors(side: NDArray[np.float64]) -> Any:
        return [metrics.frechet_error(side, train), metrics.kernel_error(side, train)]

    measures = (frechet, kernel, balls)
    work: list[tuple[Any, NDArray[np.float64]]] = [(measure, side) for measure in measures for side in sides]
    work.append((errors, sides[0]))
    *values, spreads = parallel.values(lambda part: work[part][0](work[part][1]), len(work), found.world)
    (*distances, floor), (*estimates, kernel_floor), (*pairs, floors) = (
        values[place * len(sides) : (place + 1) * len(sides)] for place in range(len(measures))
    )
    of_mean = len(distances) ** 0.5  # groups are disjoint

    few = f"Fewer samples than the {FEATURES} features: not comparable with anything." if n <= FEATURES else ""
    value, sd = _mean(distances)
    result = {
        "frechet_distance": glossary.FRECHET_DISTANCE.measured(
            value, sd=sd, se=spreads[0] / of_mean, floor=floor, n=n, judge=judge, note=few
        )
    }
    value, sd = _mean([estimate[0] for estimate in estimates])
    spread = estimates[0][1] if len(estimates) == 1 else sd
    result["kernel_distance"] = glossary.KERNEL_DISTANCE.measured(
        value, sd=spread, se=spreads[1] / of_mean, floor=kernel_floor[0], n=n, judge=judge
    )
    if m > k:
        for place, metric in enumerate((glossary.PRECISION, glossary.RECALL)):
            value, sd = _mean([pair[place] for pair in pairs])
            error = metrics.share_error(value, m * len(pairs))
            result[metric.name] = metric.measured(value, sd=sd, se=error, floor=floors[place], n=m, judge=judge)
    return result


def _mean(values: list[float]) -> tuple[float, float | None]:
    """Mean over groups of samples, and their standard deviation if there are several."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def _classes(found: _Sides) -> Measured:
    labels, asked, n = found.samples.labels, found.samples.labels >= 0, len(found.samples.labels)
    result: Measured = {}
    if found.data.classes == 1:  # nothing to tell apart
        return result
    if asked.any():
        accuracy = float((found.generated.classes == labels)[asked].mean())
        result["class_accuracy"] = glossary.CLASS_ACCURACY.measured(
            accuracy,
            se=metrics.share_error(accuracy, int(asked.sum())),
            floor=float((found.test.classes == found.test_labels).mean()),
            n=int(asked.sum()),
            judge=found.judge.sha256,
        )
    classes = found.data.classes
    training = np.asarray(found.data.metadata["class_histogram"]["train"], np.float64)
    conditional = bool(asked.all())
    expected = np.bincount(labels, minlength=classes) if conditional else training
    real_expected = np.bincount(found.test_labels, minlength=classes) if conditional else training
    chi2, floor = (  # infinite, so None, where a class was drawn that was not asked for
        metrics.histogram_chi2(np.bincount(drawn, minlength=classes), share)
        for drawn, share in ((found.generated.classes, expected), (found.test.classes, real_expected))
    )
    again = metrics.bootstrap_error(
        lambda drawn: metrics.histogram_chi2(np.bincount(drawn, minlength=classes), expected),
        found.generated.classes,
    ) if np.isfinite(chi2) else None  # fmt: skip
    result["class_chi2"] = glossary.CLASS_CHI2.measured(chi2, se=again, floor=floor, n=n, judge=found.judge.sha256)
    result["confidence"] = glossary.CONFIDENCE.measured(
        found.generated.confidence,
        se=float(found.generated.probabilities.max(1).std() / n**0.5),
        floor=found.test.confidence,
        n=n,
        judge=found.judge.sha256,
    )
    return result


def _memorisation(near: Neighbours, real: Neighbours) -> Measured:
    n = len(near.distances)
    nearest, floor = (float(np.median(side.distances)) for side in (near, real))
    copies, real_copies = (float(side.copies().mean()) for side in (near, real))
    error = metrics.bootstrap_error(lambda rows: float(np.median(rows)), near.distances)
    return {
        "nearest_neighbour": glossary.NEAREST_NEIGHBOUR.measured(nearest, se=error, floor=floor, n=n),
        "memorised": glossary.MEMORISED.measured(copies, se=metrics.share_error(copies, n), floor=real_copies, n=n),
    }


# --- everything else


def _facts(found: _Sides, model: Path) -> dict[str, Any]:
    classes, labels = found.data.classes, found.samples.labels
    asked = (labels >= 0) & (classes > 1)
    right = found.generated.classes == labels
    per_class = [float(right[labels == c].mean()) if (labels == c).any() else None for c in range(classes)]
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels[asked], found.generated.classes[asked]), 1)
    count = int(asked.sum())
    return {
        "sample": found.samples.sampling.terms(),
        "evaluations": found.samples.sampling.nfe,
        "count": len(labels),
        "class_names": found.data.class_names,
        "per_class_accuracy": per_class if count else None,
        "class_accuracy_interval": list(wilson(int(right[asked].sum()), count)) if count else None,
        "confusion": confusion.tolist() if count else None,  # rows: asked for, columns: read by the judge
        "class_histogram": {
            "samples": np.bincount(found.generated.classes, minlength=classes).tolist(),
            "real": found.data.metadata["class_histogram"]["test"],
        },
        "mean_confidence": {
            "samples": found.generated.confidence,
            "real": found.test.confidence,
        },
        "validation_loss": validation_loss(model),
        "judge": {key: found.judge.description[key] for key in ("sha256", "accuracy", "n", "interval")},
        "data_sha256": found.data.content_sha256,
        "weights_sha256": found.samples.sampling.weights_sha256,
    }


def validation_loss(model: Path) -> dict[str, float] | None:
    """The last validation in the model's train_log.jsonl, `loss` and `loss/sigma=..`; None if there is none."""
    path = model / "train_log.jsonl"
    if not path.is_file():
        return None
    rows = storage.read_json_lines(path)
    found = [row["validation"] for row in rows if isinstance(row, dict) and "validation" in row]
    try:
        return {str(name): float(value) for name, value in found[-1].items()} if found else None
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{path}: validation: expected losses by name, found {str(found[-1])[:60]}") from None


def _neighbours(config: ImageEvaluate, found: _Sides, near: Neighbours, real: Neighbours) -> bytes:
    labels = found.samples.labels[: len(near.distances)]
    read = np.where(labels >= 0, labels, found.generated.classes[: len(labels)])
    shown = closest_of_each_class(near.distances, read, config.neighbours)
    places = near.indices[shown]
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        samples=found.samples.images[shown],
        labels=labels[shown],
        neighbours=np.asarray(found.data.images("train")[places]),
        neighbour_labels=found.data.labels("train")[places],
        pair_distances=near.distances[shown],
        distances=near.distances,
        test_distances=real.distances,
    )
    return stream.getvalue()
