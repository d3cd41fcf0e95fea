"""What prepare-data remembers of the images that it writes: enough to describe and to judge them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.images.contents import hashes
from core.images.dataset import SPLITS, Split
from core.images.sources import Batch
from core.images.split import UNUSED
from core.sources.summary import Tally


class Seen:
    """Of images that are seen in batches, in their order within each split.

    Args:
        classes: how many there are.
        examples: keep some training images of each, for those who look at a data set whose images are elsewhere.
    """

    def __init__(self, classes: int, *, examples: bool) -> None:
        self.shape: tuple[int, ...] | None = None
        self.pixels = np.zeros(256, np.int64)  # how often each value 0..255 occurs in the training images
        self._hashes: list[NDArray[np.uint64]] = []
        self._splits: list[NDArray[np.uint8]] = []
        self._examples = Examples(classes) if examples else None

    def add(self, batch: Batch, codes: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        """`batch` [B, ...], each of the split that an index of `SPLITS` names, or `UNUSED`."""
        self.shape = batch.shape[1:]
        self.pixels += values_of(batch[codes == 0])
        self._hashes.append(hashes(batch[codes != UNUSED]))
        self._splits.append(codes[codes != UNUSED])
        if self._examples is not None:
            self._examples.add(batch[codes == 0], labels[codes == 0])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All but the shape, for `join` of another one."""
        known: dict[str, NDArray[Any]] = {
            "pixels": self.pixels,
            "hashes": np.concatenate(self._hashes),
            "splits": np.concatenate(self._splits),
        }
        if self._examples is None:
            return known
        images, labels = self._examples.arrays()
        return {**known, "example_images": images, "example_labels": labels}

    def join(self, later: dict[str, NDArray[Any]]) -> None:
        """What another one has seen of images that come after those of this one."""
        self.pixels += later["pixels"]
        self._hashes.append(later["hashes"])
        self._splits.append(later["splits"])
        if self._examples is not None and len(later["example_labels"]):
            self.shape = later["example_images"].shape[1:]
            self._examples.add(later["example_images"], later["example_labels"])

    def leaked(self, tally: Tally) -> dict[Split, int]:
        """Tells `tally` how many images equal an earlier one, and how many held-out ones equal one of training; the
        latter by split."""
        contents, splits = np.concatenate(self._hashes), np.concatenate(self._splits)
        tally.count("duplicates", len(contents) - len(np.unique(contents)))
        known, leaked = contents[splits == 0], dict[Split, int]()
        for index, split in enumerate(SPLITS[1:], 1):
            leaked[split] = int(np.isin(contents[splits == index], known).sum())
            tally.count("leaked", leaked[split])
        return leaked

    def examples(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Training images [N, ...] and their labels [N], by class."""
        assert self._examples is not None
        return self._examples.arrays()


class Examples:
    """The first training images of each class."""

    CLASSES, EACH = 100, 24

    def __init__(self, classes: int) -> None:
        self._room = np.full(classes, 4 * self.EACH if classes == 1 else self.EACH)
        self._room[self.CLASSES :] = 0
        self._images: list[NDArray[np.uint8]] = []
        self._labels: list[NDArray[np.int64]] = []

    def add(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        """`images` [B, ...] of the classes `labels` [B]; those that there is room for are kept."""
        for label in np.flatnonzero(self._room[: int(labels.max(initial=-1)) + 1]):
            chosen = np.flatnonzero(labels == label)[: self._room[label]]
            self._room[label] -= len(chosen)
            self._images.append(images[chosen])
            self._labels.append(labels[chosen])

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The images [N, ...] and their labels [N], by class: so in one order, in whichever batches they came."""
        if not self._images:
            return np.empty((0, 1, 1), np.uint8), np.empty(0, np.int64)
        labels = np.concatenate(self._labels)
        order = np.argsort(labels, kind="stable")
        return np.concatenate(self._images)[order], labels[order]


def values_of(batch: Batch) -> NDArray[np.int64]:
    """How often each value 0..255 is in `batch`; by pairs of pixels, which takes a quarter of the time. int64 [256]"""
    flat = batch.reshape(-1)
    pairs = np.bincount(flat[: len(flat) // 2 * 2].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    return pairs.sum(0) + pairs.sum(1) + np.bincount(flat[len(flat) // 2 * 2 :], minlength=256)
