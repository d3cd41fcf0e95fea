"""Images in memory: arrays as notebooks have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from core.errors import UserError
from core.images.sources.source import (
    Batch,
    Pool,
    Source,
    check_images,
    rows_per_batch,
    to_labels,
    to_uint8,
    with_contiguous_classes,
)

EVERYTHING = "all"  # the one class of images without labels


def open_arrays(images: Any, labels: Any = None, class_names: Sequence[str] = ()) -> Source:
    """Arrays, or whatever numpy takes for one, torch tensors on the CPU included.

    Args:
        images: [N, H, W], [N, H, W, 1], [N, H, W, 3], or [N, C, H, W] as torch has them; uint8, integers 0..255 or
            floats 0..1.
        labels: integers [N], from 0 or from 1; None: one class for all.
        class_names: one for each class; left out: the labels' own numbers.

    Raises:
        UserError: they cannot be used, or do not belong together.
    """
    pixels = np.asarray(images)
    if pixels.ndim == 4 and pixels.shape[1] in (1, 3) and pixels.shape[3] not in (1, 3):
        pixels = pixels.transpose(0, 2, 3, 1)
    check_images("images", pixels.shape, pixels.dtype)
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    if labels is None:
        labels, class_names = np.zeros(len(pixels), np.int64), class_names or (EVERYTHING,)
    values = np.asarray(labels)
    if values.dtype.kind not in "uif":
        raise UserError(f"labels: found dtype {values.dtype}; allowed are integers, one class for each image")
    values = to_labels("labels", values)
    if len(values) != len(pixels):
        raise UserError(f"labels: found {len(values)} for {len(pixels)} images; the counts must be equal")

    def batches() -> Iterator[Batch]:
        rows = rows_per_batch(pixels.shape[1:])
        for start in range(0, len(pixels), rows):
            yield to_uint8("images", pixels[start : start + rows], start)

    return with_contiguous_classes(Source(Pool("images", values, batches), tuple(map(str, class_names))), "images")
