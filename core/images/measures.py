"""The metrics of images, from what a judge says of samples and of real images.

A floor is the same number for real images in the place of the samples: as many, in the samples' mixture of classes.
Distances are measured to training and to test images. A model that copies its training images is nearer to them than
test images are, and no nearer to test images than training images are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.evaluation import Sampling
from core.images import glossary, metrics
from core.images.dataset import ImageDataset
from core.images.judge import FEATURES, Answers, Judge
from core.images.neighbours import Neighbours
from core.images.samples import Samples
from core.metrics import Definition, Metric
from core.processes import parts as parallel
from core.processes.world import World

Measured = dict[str, Metric]
Features = NDArray[np.float64]  # [N, 64]


@dataclass(frozen=True)
class Sides:
    """Samples and real images, each with what the judge says of them; every contiguous part has the same classes."""

    data: ImageDataset
    judge: Judge
    samples: Samples
    mixture: NDArray[np.float64]  # [K], the classes expected of the samples; any scale
    generated: Answers
    train: Answers  # in the samples' mixture of classes
    test: Answers  # of the whole test split
    test_labels: NDArray[np.int64]
    matched: NDArray[np.int64]  # indices into test, in the samples' mixture of classes
    world: World

    @property
    def n(self) -> int:
        """Images on a side, wherever a floor is to be comparable."""
        return min(len(self.samples.images), len(self.matched), len(self.train.features))

    def groups(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        """`rows` of the samples in disjoint groups of n."""
        return [rows[start : start + self.n] for start in range(0, len(rows) - self.n + 1, self.n)]

    def of_test(self, values: NDArray[Any], mixture: NDArray[Any]) -> float | None:
        """Mean of `values`, one for each test image, over a `mixture` of classes [K]; None if one has no image."""
        counts = np.bincount(self.test_labels, minlength=self.data.classes)
        if counts[mixture > 0].min(initial=1) == 0:
            return None
        sums = np.bincount(self.test_labels, values.astype(np.float64), minlength=self.data.classes)
        return float((mixture * sums / np.maximum(counts, 1)).sum() / mixture.sum())


def features(nearest: int, compared: Sides) -> Measured:
    """Distances of features to training and to test images; precision and recall by balls of `nearest` neighbours."""
    n, train, test = compared.n, compared.train.features, compared.test.features[compared.matched]
    return {
        **_distances(compared, (glossary.FRECHET_DISTANCE, glossary.KERNEL_DISTANCE), train, test[:n]),
        **_distances(compared, (glossary.FRECHET_DISTANCE_TEST, glossary.KERNEL_DISTANCE_TEST), test, train[:n]),
        **_balls(compared, nearest, train, test[:n]),
    }


def _distances(compared: Sides, names: tuple[Definition, Definition], reference: Features, real: Features) -> Measured:
    """Fréchet and kernel distance of the samples to `reference`; `real` images in their place give the floors."""
    n, judge, groups = compared.n, compared.judge.sha256, compared.groups(compared.generated.features)

    def frechet(side: Features) -> Any:
        return metrics.frechet_distance(side, reference)

    def kernel(side: Features) -> Any:
        estimate = metrics.kernel_distance(side, reference)
        return [estimate.value, estimate.sd]

    def errors(side: Features) -> Any:
        return [metrics.frechet_error(side, reference), metrics.kernel_error(side, reference)]

    sides = [*groups, real]
    work: list[tuple[Any, Features]] = [(measure, side) for measure in (frechet, kernel) for side in sides]
    work.append((errors, sides[0]))
    *values, spreads = parallel.values(lambda part: work[part][0](work[part][1]), len(work), compared.world)
    (*distances, floor), (*estimates, kernel_floor) = values[: len(sides)], values[len(sides) :]
    of_mean = len(groups) ** 0.5  # groups are disjoint
    doubt = _doubt(compared)
    value, sd = _mean(distances)
    result = {
        names[0].name: names[0].measured(
            value, sd=sd, se=spreads[0] / of_mean, floor=floor, n=n, judge=judge, doubt=doubt
        )
    }
    value, sd = _mean([estimate[0] for estimate in estimates])
    spread = estimates[0][1] if len(estimates) == 1 else sd
    result[names[1].name] = names[1].measured(
        value, sd=spread, se=spreads[1] / of_mean, floor=kernel_floor[0], n=n, judge=judge, doubt=doubt
    )
    return result


def _doubt(compared: Sides) -> str:
    """Why distances between features say little: too few images, or a judge that learned nothing; else empty."""
    if compared.n <= FEATURES:
        return f"{compared.n} images a side are too few for the judge's {FEATURES} features"
    described = compared.judge.description
    guessing = float(np.bincount(compared.test_labels).max() / len(compared.test_labels))  # always the same class
    if compared.data.classes > 1 and described["interval"][0] <= guessing:
        return f"the judge reads {described['accuracy']:.0%} of {described['n']:,} test images, as guessing would"
    return ""


def _balls(compared: Sides, k: int, train: Features, real: Features) -> Measured:
    """Precision and recall against training images; nothing where they are too few for balls of k neighbours."""
    m, groups = compared.n, compared.groups(compared.generated.features)
    if m <= k:
        return {}
    sides = [*groups, real]
    *pairs, floors = parallel.values(
        lambda part: list(metrics.precision_recall(train[:m], sides[part], k)), len(sides), compared.world
    )
    result: Measured = {}
    for place, metric in enumerate((glossary.PRECISION, glossary.RECALL)):
        value, sd = _mean([pair[place] for pair in pairs])
        error = metrics.share_error(value, m * len(pairs))
        result[metric.name] = metric.measured(
            value, sd=sd, se=error, floor=floors[place], n=m, judge=compared.judge.sha256
        )
    return result


def _mean(values: list[float]) -> tuple[float, float | None]:
    """Mean over groups of samples, and their standard deviation if there are several."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def classes(compared: Sides) -> Measured:
    """Class accuracy, class balance and the judge's confidence; nothing where there is one class only."""
    labels, asked, judge = compared.samples.labels, compared.samples.labels >= 0, compared.judge.sha256
    if compared.data.classes == 1:  # nothing to tell apart
        return {}
    result: Measured = {}
    if asked.any():
        accuracy = float((compared.generated.classes == labels)[asked].mean())
        result["class_accuracy"] = glossary.CLASS_ACCURACY.measured(
            accuracy,
            se=metrics.share_error(accuracy, int(asked.sum())),
            floor=compared.of_test(
                compared.test.classes == compared.test_labels,
                np.bincount(labels[asked], minlength=compared.data.classes),
            ),
            n=int(asked.sum()),
            judge=judge,
        )
    result["class_chi2"] = _balance(compared)
    result["confidence"] = glossary.CONFIDENCE.measured(
        compared.generated.confidence,
        se=float(compared.generated.probabilities.max(1).std() / len(labels) ** 0.5),
        floor=compared.of_test(compared.test.probabilities.max(1), compared.mixture),
        n=len(labels),
        judge=judge,
    )
    return result


def _balance(compared: Sides) -> Metric:
    """Chi-squared of the classes that the judge reads, which grows with the count: so in groups of the floor's."""

    def balance(read: NDArray[np.int64]) -> float:  # infinite, so None, where a class was drawn that was not asked for
        return metrics.histogram_chi2(np.bincount(read, minlength=compared.data.classes), compared.mixture)

    groups = compared.groups(compared.generated.classes)
    value, sd = _mean([balance(read) for read in groups])
    again = metrics.bootstrap_error(balance, groups[0]) / len(groups) ** 0.5 if np.isfinite(value) else None
    real = balance(compared.test.classes[compared.matched[: compared.n]])
    return glossary.CLASS_CHI2.measured(
        value, sd=sd if np.isfinite(value) else None, se=again, floor=real, n=compared.n, judge=compared.judge.sha256
    )


def memorisation(near: Neighbours, real: Neighbours) -> Measured:
    """How near samples come to single training images; `real` test images in their place give the floors."""
    n = len(near.distances)
    nearest, floor = (float(np.median(side.distances)) for side in (near, real))
    copies, real_copies = (float(side.copies().mean()) for side in (near, real))
    error = metrics.bootstrap_error(lambda rows: float(np.median(rows)), near.distances)
    return {
        "nearest_neighbour": glossary.NEAREST_NEIGHBOUR.measured(nearest, se=error, floor=floor, n=n),
        "memorised": glossary.MEMORISED.measured(copies, se=metrics.share_error(copies, n), floor=real_copies, n=n),
    }


def redrawn(sampling: Sampling) -> Measured:
    """The share of samples that were drawn again; nothing where none was to be."""
    if sampling.redrawn is None or not sampling.count:
        return {}
    return {"redrawn": glossary.REDRAWN.measured(sampling.redrawn / sampling.count, n=sampling.count)}
