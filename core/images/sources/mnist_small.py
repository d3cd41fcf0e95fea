"""7,000 images of MNIST, embedded: 600 of each digit to train on, 100 of each from MNIST's own test split.

`python -m core.images.sources.mnist_small FOLDER` writes the file anew from MNIST's four IDX files. The choice is a
pure function of MNIST's order, so the arrays come out the same everywhere; licence and source are in the file's folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.images.config import ImageData
from core.images.sources import embedded
from core.images.sources.idx import open_idx
from core.images.sources.intake import Intake
from core.images.sources.npz import open_npz
from core.images.sources.source import Labels, Pool, Source

FILE = Path(__file__).parents[1] / "embedded" / "mnist-small.npz"
SHA256 = "e25f03f9d905f8eff9a76264943f538d06216d0bbe6aece213915147186ba472"
TRAIN, TEST = 600, 100  # images of each digit
SEED = 0


def open_mnist_small(intake: Intake) -> Source:
    """The embedded images in the splits train and test.

    Raises:
        UserError: the file is not the one that belongs to this code.
    """
    return open_npz(str(embedded.verified(FILE, SHA256)), intake)


def chosen(labels: Labels, each: int, seed: int) -> NDArray[np.int64]:
    """The places of `each` images of every class, drawn by `seed`, in the order that they have."""
    # Raw Philox words, not Generator methods: numpy promises their stream over versions.
    order = np.argsort(np.random.Philox(seed).random_raw(len(labels)), kind="stable")
    picked = np.concatenate([order[labels[order] == label][:each] for label in range(labels.max() + 1)])
    return np.sort(picked)


def make(mnist: str, out: Path) -> None:
    """Writes the npz of images chosen from the IDX files in the folder `mnist`.

    Pixels of value 1 of 255 become 0: copies of MNIST differ in them.
    """
    source = open_idx(mnist, Intake(ImageData(source="mnist", data_dir=mnist)), need_test=True)
    assert source.test is not None
    arrays: dict[str, NDArray[np.uint8]] = {}
    for name, pool, each in (("train", source.train, TRAIN), ("test", source.test, TEST)):
        images, places = _images(pool), chosen(pool.labels, each, SEED)
        arrays[f"{name}_images"] = np.where(images[places] == 1, 0, images[places]).astype(np.uint8)
        arrays[f"{name}_labels"] = pool.labels[places].astype(np.uint8)
    embedded.write(out, arrays)


def _images(pool: Pool) -> NDArray[np.uint8]:
    return np.concatenate(list(pool.batches()))


if __name__ == "__main__":
    make(sys.argv[1], FILE)
