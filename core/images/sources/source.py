"""What every reader of images shares: the shape of a source, and the checks that protect memory and disk."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core import storage
from core.errors import UserError
from core.images.sources.intake import Intake

Labels = NDArray[np.int64]
Batch = NDArray[np.uint8]

BATCH_BYTES = 4 << 20  # of pixels read at once
MAX_SIDE = 4096  # pixels; larger is refused before it is decoded
MAX_CLASSES = 100_000
MAX_EXPANSION = 200  # compressed data that expands further, and past BOMB_BYTES, is refused
BOMB_BYTES = 256 << 20


class Item(NamedTuple):
    """An encoded image: its name for errors, and its bytes; without them the name is the file's."""

    name: str
    content: bytes | None = None

    def open(self) -> IO[bytes]:
        """A stream of its bytes."""
        return storage.open_read(self.name) if self.content is None else io.BytesIO(self.content)

    @staticmethod
    def packed(items: Sequence[Item]) -> dict[str, NDArray[np.uint8]]:
        """The items as arrays, for another process."""
        lines = "\0".join(item.name for item in items)
        contents = {f"{i}": np.frombuffer(item.content, np.uint8) for i, item in enumerate(items) if item.content}
        return {"names": np.frombuffer(os.fsencode(lines), np.uint8), **contents}

    @staticmethod
    def unpacked(packed: Mapping[str, NDArray[np.uint8]]) -> list[Item]:
        """What `packed` was made of."""
        names = os.fsdecode(packed["names"].tobytes()).split("\0")
        return [Item(name, packed[f"{i}"].tobytes() if f"{i}" in packed else None) for i, name in enumerate(names)]


@dataclass(frozen=True)
class Pool:
    """Images of one part of a source: `labels` int64 [N], `batches` yields uint8 [B, H, W] or [B, H, W, 3].

    Where each image is encoded by itself, `items` are they. Where images can be read in any order, `picked` yields
    batches of those at int64 [M]. Where each image is a file, `files` are their names.
    """

    name: str
    labels: Labels
    batches: Callable[[], Iterator[Batch]]
    items: Callable[[], Iterable[Item]] | None = None
    picked: Callable[[NDArray[np.int64]], Iterator[Batch]] | None = None
    files: Sequence[str] | None = None

    def rearranged(self, order: NDArray[np.int64]) -> Pool:
        """The same images in `order` [N]; needs `picked`."""
        assert self.picked is not None
        picked = self.picked
        files = None if self.files is None else [self.files[index] for index in order]
        return replace(self, labels=self.labels[order], batches=lambda: picked(order), files=files)


@dataclass(frozen=True)
class Source:
    """A source's parts. Those it does not bring itself (None) are carved from `train`."""

    train: Pool
    class_names: tuple[str, ...]
    intake: Intake
    validation: Pool | None = None
    test: Pool | None = None
    labelled: bool = True


UNLABELLED = "all"
"""The one class of images without classes."""


def unlabelled(source: Source) -> Source:
    """`source` as an unconditional data set: one class of all images."""

    def of_one(pool: Pool) -> Pool:
        return replace(pool, labels=np.zeros_like(pool.labels))

    return replace(
        source,
        class_names=(UNLABELLED,),
        labelled=False,
        train=of_one(source.train),
        validation=of_one(source.validation) if source.validation else None,
        test=of_one(source.test) if source.test else None,
    )


def with_contiguous_classes(source: Source, where: str) -> Source:
    """`source` with labels 0..K-1. Labels may start at 0 or at 1 and must not skip a value.

    Classes are named by data.class_names, by the source, or else by their labels as the source has them.

    Raises:
        UserError: a negative or very large label, a class without training images, or a label only seen elsewhere.
    """
    labels = source.train.labels
    if len(labels) == 0:
        raise UserError(f"{where}: holds no training images")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > MAX_CLASSES:
        raise UserError(f"{where}: found labels from {low} to {high}; allowed are 0 to {MAX_CLASSES}")
    start = 1 if low == 1 else 0
    counts = np.bincount(labels, minlength=high + 1)[start:]
    names = source.intake.config.class_names or source.class_names
    if (counts == 0).any():
        empty = int(np.argmin(counts != 0))
        name = f" ({names[empty]!r})" if len(names) > empty else ""
        raise UserError(
            f"{where}: labels must count from 0 or from 1 without a gap; they go up to {high}, and no image has"
            f" {empty + start}{name}"
        )
    for pool in (source.validation, source.test):
        if (
            pool is not None
            and len(pool.labels)
            and not start <= int(pool.labels.min()) <= int(pool.labels.max()) <= high
        ):
            raise UserError(
                f"{pool.name}: found labels from {pool.labels.min()} to {pool.labels.max()}; "
                f"the training images have {start} to {high}"
            )

    def shifted(pool: Pool) -> Pool:
        return replace(pool, labels=pool.labels - start)

    names = names or tuple(str(value) for value in range(start, high + 1))
    if len(names) != high + 1 - start:
        raise UserError(f"{where}: found {len(names)} class names and {high + 1 - start} classes")
    return replace(
        source,
        class_names=names,
        train=shifted(source.train),
        validation=shifted(source.validation) if source.validation else None,
        test=shifted(source.test) if source.test else None,
    )


def check_side(name: str, height: int, width: int, *, hint: str = "") -> None:
    """Refuses image sizes that are empty or absurd, before memory is taken for them; `hint` ends the refusal."""
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise UserError(
            f"{name}: found images of {width} x {height} pixels; allowed are 1 to {MAX_SIDE} on each side{hint}"
        )


def check_images(where: str, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Refuses what is no array of images, by its shape and type alone."""
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise UserError(f"{where}: found shape {tuple(shape)}; allowed are [N, H, W], [N, H, W, 1] and [N, H, W, 3]")
    check_side(where, *shape[1:3])
    if dtype.kind not in "uifb":
        raise UserError(f"{where}: found dtype {dtype}; allowed are integers and floats")


def to_labels(where: str, values: NDArray[Any]) -> Labels:
    """Labels [N], or [N, 1] as MedMNIST has them, as int64 [N]."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise UserError(f"{where}: found shape {values.shape}; allowed is [N], one class for each image")
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise UserError(f"{where}: found labels that are not whole numbers")
    return values.astype(np.int64)


def refuse_bomb(name: str, compressed: int, expanded: int) -> None:
    """Refuses data that expands so far that it was made to fill a disk."""
    if expanded > BOMB_BYTES and expanded > MAX_EXPANSION * max(compressed, 1):
        raise UserError(
            f"{name}: {compressed} bytes expand to {expanded}; more than {MAX_EXPANSION}-fold is refused "
            "as a decompression bomb"
        )


def rows_per_batch(shape: Sequence[int]) -> int:
    """How many images of `shape` make up a batch of about `BATCH_BYTES`."""
    return max(1, BATCH_BYTES // max(1, int(np.prod(shape))))


def natural_order(name: str) -> list[int | str]:
    """Sort key under which `class2` comes before `class10`."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", name))]
