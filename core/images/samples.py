"""The samples artifact as its readers see it: checked against the data set it is to be compared with."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.evaluation import Sampling
from core.images.dataset import ImageDataset


@dataclass(frozen=True)
class Samples:
    """`images` uint8 [N, H, W] or [N, H, W, 3]; `labels` int64 [N], -1 where no class was asked for."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sampling: Sampling

    def interleaved(self) -> Samples:
        """The same samples in an order in which every contiguous part has the same mixture of classes."""
        order = in_proportion(self.labels + 1, np.bincount(self.labels + 1), len(self.labels))
        return replace(self, images=self.images[order], labels=self.labels[order])


def in_proportion(
    labels: NDArray[np.int64], shares: NDArray[Any], count: int, *, shuffled: bool = False
) -> NDArray[np.int64]:
    """Indices of up to `count` of `labels` [N] with classes in proportion to `shares` [K], and so in every part.

    As many as the class that runs out first allows. Within a class they come in order, or `shuffled` the same way
    every time: collected data is rarely in random order (the first half of MNIST's test split is the easier one).
    """
    order = np.arange(len(labels))
    if shuffled:
        order = np.argsort(np.random.Philox(0).random_raw(len(labels)), kind="stable")
    place = np.full(len(labels), np.inf)  # position of an index, from 0 to 1
    limit = float(count) / shares.sum()
    for label in np.flatnonzero(shares):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / shares[label]
        limit = min(limit, len(members) / shares[label])
    chosen = np.argsort(place, kind="stable")
    return chosen[place[chosen] < limit + 1e-9][:count].astype(np.int64)


def read_samples(folder: Path, data: ImageDataset, count: int) -> Samples:
    """The first `count` samples in `folder`; fewer if fewer were drawn.

    Raises:
        UserError: the file is damaged, or holds images of another shape or classes than `data`.
    """
    path = folder / "samples.npz"
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a folder written by sample")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"][:count], arrays["labels"][:count].astype(np.int64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a whole npz of images and labels: {error}") from None
    if (
        images.dtype != np.uint8
        or images.shape[1:] != data.shape
        or labels.shape != images.shape[:1]
        or len(images) < 2
    ):
        raise UserError(
            f"{path}: images {images.dtype} {images.shape}, labels {labels.shape}; "
            f"expected at least two uint8 images of the data set's shape {data.shape}, and as many labels"
        )
    sampling = Sampling.read(folder)
    labels = by_name(labels, sampling.class_names, data.class_names, str(path))
    if labels.min() < -1 or labels.max() >= data.classes:
        raise UserError(f"{path}: labels from {labels.min()} to {labels.max()}; allowed are -1 to {data.classes - 1}")
    return Samples(images, labels, sampling)


def by_name(
    labels: NDArray[np.int64], own: Sequence[str] | None, wanted: Sequence[str], where: str
) -> NDArray[np.int64]:
    """Labels [N] that number the names `own`, as numbers of the names `wanted`; -1 stays. Nothing changes where the
    names are the same or not known.

    Raises:
        UserError: a label has no name, or none of that name is wanted; `where` is named.
    """
    if own is None or list(own) == list(wanted):
        return labels
    renumbered = labels.copy()
    for label in np.unique(labels[labels >= 0]):
        name = own[label] if label < len(own) else None
        if name not in wanted:
            raise UserError(f"{where}: samples of class {name or label}, which the data set does not have")
        renumbered[labels == label] = list(wanted).index(str(name))
    return renumbered
