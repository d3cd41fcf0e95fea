"""The data set artifact as its readers see it: verified, then memory-mapped, or read in shards. `core/images/data.py`
writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core import storage
from core.config import validate
from core.errors import UserError
from core.images.shards import FOLDER, INDEX, Images, ShardIndex, Shards
from core.names import inside
from core.storage import integrity

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FORMAT, SHARDED = 1, 2  # of dataset.json and the files it names: an array for each split, or shards


@dataclass(frozen=True)
class ImageDataset:
    """A prepared data set, memory-mapped. `ImageDataset.open(folder)` verifies it first."""

    path: Path
    metadata: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> ImageDataset:
        """The data set in the local folder `path`; with `verify`, every file's SHA-256 is compared.

        Raises:
            UserError: the folder is no data set of images, a file is missing, or a file is not what was written.
        """
        folder = Path(path)
        if not (folder / "dataset.json").is_file():
            raise UserError(f"{folder}: no dataset.json there; expected a folder written by prepare-data")
        metadata = integrity.read_json(folder / "dataset.json")
        if metadata.get("modality") != "images" or metadata.get("format") not in (FORMAT, SHARDED):
            raise UserError(f"{folder / 'dataset.json'}: not a data set of images in format {FORMAT} or {SHARDED}")
        arrays = [f"{split}_{what}.npy" for split in SPLITS for what in ("images", "labels")]
        if metadata["format"] == SHARDED:
            arrays = [INDEX, *(f"{split}_labels.npy" for split in SPLITS)]
        for name in arrays:
            expected, file = metadata["files"][name], inside(folder, name)
            if storage.size(file) != expected["bytes"]:
                raise UserError(f"{file}: found {storage.size(file)} bytes, dataset.json says {expected['bytes']}")
            if verify and storage.sha256(file) != expected["sha256"]:
                raise UserError(f"{file}: its SHA-256 is not the one in dataset.json; run prepare-data again")
        return cls(folder, metadata)

    @cached_property
    def _index(self) -> ShardIndex:
        where = inside(self.path, INDEX)
        index = validate(ShardIndex, storage.read_json(where), str(where))
        for split in SPLITS:
            if sum(shard.images for shard in index.splits.get(split, ())) != self.count(split):
                raise UserError(f"{where}: has not the {self.count(split)} images of {split} that dataset.json says")
        return index

    def images(self, split: Split) -> Images:
        """uint8 [N, H, W] or [N, H, W, 3], memory-mapped and read-only, or in shards that are verified as they are
        read."""
        if self.metadata["format"] == SHARDED:
            root = str(self.metadata["shards"]["root"] or inside(self.path, FOLDER))
            return Shards(root, self._index.splits[split], self._index.rows, self.shape)
        loaded: NDArray[np.uint8] = np.load(inside(self.path, f"{split}_images.npy"), mmap_mode="r", allow_pickle=False)
        return loaded

    def labels(self, split: Split) -> NDArray[np.int64]:
        """int64 [N], values 0..classes-1."""
        loaded: NDArray[np.int64] = np.load(inside(self.path, f"{split}_labels.npy"), allow_pickle=False)
        return loaded

    def count(self, split: Split) -> int:
        """How many images `split` has."""
        return int(self.metadata["counts"][split])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image as stored: (H, W) or (H, W, 3)."""
        return tuple(self.metadata["shape"])

    @property
    def channels(self) -> int:
        return 3 if len(self.shape) == 3 else 1

    @property
    def class_names(self) -> list[str]:
        return list(self.metadata["class_names"])

    @property
    def classes(self) -> int:
        return len(self.metadata["class_names"])

    @property
    def content_sha256(self) -> str:
        """Identifies images, labels, class names and split together."""
        return str(self.metadata["content_sha256"])

    def batches(self, split: Split, size: int) -> Iterator[NDArray[np.uint8]]:
        """The images of `split` in order, `size` at a time."""
        images = self.images(split)
        for start in range(0, len(images), size):
            yield images[start : start + size]
