"""1,797 scans of handwritten digits, 8x8 pixels, embedded: the test set of UCI's optical digits, without a split.

`python -m core.images.sources.digits` writes the file anew from scikit-learn's copy, which is needed for that alone;
licence and source are in the file's folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from core.images.sources import embedded
from core.images.sources.intake import Intake
from core.images.sources.source import Pool, Source

FILE = Path(__file__).parents[1] / "embedded" / "digits.npz"
SHA256 = "9c61dc44072604a511741a5b9797768505c5ce94861a8031417fa15a25f59577"


def open_digits(intake: Intake) -> Source:
    """The embedded scans.

    Raises:
        UserError: the file is not the one that belongs to this code.
    """
    with np.load(embedded.verified(FILE, SHA256)) as arrays:
        images, labels = arrays["images"], arrays["labels"].astype(np.int64)
    pool = Pool("digits", labels, lambda: iter([images]))
    return Source(train=pool, class_names=tuple(str(digit) for digit in range(10)), intake=intake)


def make(out: Path) -> None:
    """Writes the npz; pixels 0..16 become 0..255."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    images = np.rint(scans.images * (255 / 16)).astype(np.uint8)
    embedded.write(out, {"images": images, "labels": scans.target.astype(np.uint8)})


if __name__ == "__main__":
    make(FILE)
