"""Images that a service gave beside those that its model was measured by, as the judge sees both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from core.errors import UserError
from core.images import glossary, measures
from core.images.config import ImageEvaluate
from core.images.dataset import ImageDataset
from core.images.evaluation import sides_of
from core.images.judge import FEATURES, Judge
from core.images.samples import Samples, in_proportion, read_samples
from core.metrics import Metric
from core.processes.world import SINGLE_PROCESS

WATCHED = (glossary.FRECHET_DISTANCE.name, glossary.KERNEL_DISTANCE.name, glossary.CLASS_ACCURACY.name)
LEAST = FEATURES + 1  # images on a side, below which distances of features say nothing
MOST = 100_000


def compare(
    served: Path, samples: Path, dataset: Path, judge: Path, config: ImageEvaluate
) -> tuple[dict[str, Metric], dict[str, Metric], int]:
    """The watched metrics of both folders of samples, of equally many in one mixture of classes; and how many.

    Raises:
        UserError: they do not belong to this data set, or are too few.
    """
    data, opened = ImageDataset.open(dataset), Judge.open(judge)
    given = read_samples(served, data, MOST)
    drawn = _alike(read_samples(samples, data, MOST), given)
    n = min(len(given.images), len(drawn.images))
    if n < LEAST:
        raise UserError(f"{served}: {n} images to compare on a side; {LEAST} are needed: wait, or raise --watch-keep")
    sides = (_first(given.interleaved(), n), _first(drawn, n))
    first, second = (_watched(config, data, opened, side) for side in sides)
    return first, second, n


def _alike(drawn: Samples, given: Samples) -> Samples:
    """Of the samples `drawn` those in the mixture of classes of `given`; all where it has a class that they lack."""
    shares = np.bincount(given.labels + 1)
    known = np.bincount(drawn.labels + 1, minlength=len(shares))
    if (known[: len(shares)][shares > 0] == 0).any():
        return drawn.interleaved()
    chosen = in_proportion(drawn.labels + 1, shares, len(drawn.labels))
    return replace(drawn, images=drawn.images[chosen], labels=drawn.labels[chosen])


def _first(samples: Samples, n: int) -> Samples:
    return replace(samples, images=samples.images[:n], labels=samples.labels[:n])


def _watched(config: ImageEvaluate, data: ImageDataset, judge: Judge, samples: Samples) -> dict[str, Metric]:
    sides = sides_of(config, data, judge, samples, SINGLE_PROCESS)
    values = {**measures.features(config.nearest, sides), **measures.classes(sides)}
    return {name: values[name] for name in WATCHED if name in values}
