"""Which images are for training, which for validation and which for the test: a pure function of labels and seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.images.config import ImageData
from core.images.dataset import SPLITS, Split
from core.images.sources import Labels, Pool, Source

UNUSED = len(SPLITS)  # the code of images that data.limit leaves out


def hold_out(labels: Labels, fraction: float, seed: int) -> NDArray[np.bool_]:
    """A mask of floor(fraction * N) images, drawn by `seed`, in which every class has its share."""
    # Raw Philox words, not Generator methods: numpy promises their stream over versions.
    order = np.argsort(np.random.Philox(seed).random_raw(len(labels)), kind="stable")
    order = order[np.argsort(labels[order], kind="stable")]  # by class, at random within it
    count = int(len(labels) * fraction + 1e-9)
    steps = np.arange(len(labels) + 1) * count // max(1, len(labels))  # every N/count-th of them
    mask = np.zeros(len(labels), bool)
    mask[order[np.diff(steps) > 0]] = True
    return mask


def assign_splits(source: Source, config: ImageData) -> dict[Split, NDArray[np.uint8]]:
    """For each part that the source has: the split of each of its images, as an index of `SPLITS` or `UNUSED`.

    A test or validation part that the source brings stays whole; what it lacks is carved from its training part.
    """
    train = np.zeros(len(source.train.labels), np.uint8)
    seed = config.split_seed
    if source.test is None:
        train[hold_out(source.train.labels, config.test_fraction, seed)] = SPLITS.index("test")
    if source.validation is None:
        left = np.flatnonzero(train == 0)
        held = hold_out(source.train.labels[left], config.validation_fraction, seed + 1)
        train[left[held]] = SPLITS.index("validation")
    if config.limit is not None:
        left = np.flatnonzero(train == 0)
        if len(left) > config.limit:
            keep = hold_out(source.train.labels[left], config.limit / len(left), seed + 2)
            train[left[~keep]] = UNUSED
    assignment: dict[Split, NDArray[np.uint8]] = {"train": train}
    for split, pool in (("validation", source.validation), ("test", source.test)):
        if pool is not None:
            assignment[split] = np.full(len(pool.labels), SPLITS.index(split), np.uint8)  # type: ignore[index]
    _check_splits(source, assignment)
    return assignment


def _check_splits(source: Source, assignment: Mapping[Split, NDArray[np.uint8]]) -> None:
    counts = np.bincount(source.train.labels[assignment["train"] == 0], minlength=len(source.class_names))
    if (counts == 0).any():
        name = source.class_names[int(np.argmin(counts))]
        raise UserError(
            f"{source.train.name}: class {name!r} has no image left for training after the split; add images"
        )
    test = source.test.labels if source.test else source.train.labels[assignment["train"] == SPLITS.index("test")]
    held = np.bincount(test, minlength=len(source.class_names))
    if len(test) and (held == 0).any():
        name, total = source.class_names[int(np.argmin(held))], counts[int(np.argmin(held))]
        mend = (
            "add test images of it" if source.test else "add images, raise data.test_fraction, or leave the class out"
        )
        raise UserError(
            f"{source.train.name}: class {name!r}, of which {total:,} images are for training, has none in the test"
            f" split, so its samples could not be judged: {mend}"
        )
    for split in SPLITS:
        if not any((codes == SPLITS.index(split)).any() for codes in assignment.values()):
            raise UserError(
                f"{source.train.name}: {len(source.train.labels)} images are too few to hold out a {split} split"
            )


def pools_of(
    source: Source, config: ImageData, assignment: Mapping[Split, NDArray[np.uint8]], *, shuffled: bool
) -> list[tuple[Pool, NDArray[np.uint8]]]:
    """The parts of a source as they are read, and the split of each image; `shuffled` where they can be, for shards, of
    which a few are read at a time."""
    parts = (("train", source.train), ("validation", source.validation), ("test", source.test))
    pools = [(pool, assignment[split]) for split, pool in parts if pool is not None]  # type: ignore[index]
    return [_shuffled(pool, codes, source, config) for pool, codes in pools] if shuffled else pools


def _shuffled(
    pool: Pool, codes: NDArray[np.uint8], source: Source, config: ImageData
) -> tuple[Pool, NDArray[np.uint8]]:
    if pool.picked is not None:
        order = np.argsort(np.random.Philox(config.split_seed).random_raw(len(codes)), kind="stable")
        return pool.rearranged(order), codes[order]
    shares = np.bincount(pool.labels) / max(1, len(pool.labels))
    if (pool.labels[1:] != pool.labels[:-1]).sum() < 0.5 * len(pool.labels) * (1 - (shares**2).sum()):
        source.intake.tally.warnings.append(
            f"{pool.name}: its classes come one after the other, and are written so: a training would see few classes"
            " at a time; shuffle the images, or give a folder of files"
        )
    return pool, codes
