"""Images in memory: arrays as notebooks have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from core.errors import UserError
from core.images.config import ImageData
from core.images.sources.intake import Intake
from core.images.sources.source import (
    Batch,
    Pool,
    Source,
    check_images,
    rows_per_batch,
    to_labels,
    unlabelled,
    with_contiguous_classes,
)


def open_arrays(config: ImageData, images: Any, labels: Any = None, class_names: Sequence[str] = ()) -> Source:
    """Arrays, or whatever numpy takes for one, torch tensors on the CPU included.

    Args:
        config: says what becomes of the pixels.
        images: [N, H, W], [N, H, W, 1], [N, H, W, 3], or [N, C, H, W] as torch has them; uint8, integers 0..255 or
            floats 0..1.
        labels: integers [N], from 0 or from 1; None: images without classes.
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
    if labels is None and class_names:
        raise UserError(f"class_names: found {len(class_names)} class names and no labels")
    values = np.zeros(len(pixels), np.int64) if labels is None else np.asarray(labels)
    if values.dtype.kind not in "uif":
        raise UserError(f"labels: found dtype {values.dtype}; allowed are integers, one class for each image")
    values = to_labels("labels", values)
    if len(values) != len(pixels):
        raise UserError(f"labels: found {len(values)} for {len(pixels)} images; the counts must be equal")

    intake = Intake(config)

    def batches() -> Iterator[Batch]:
        rows = rows_per_batch(pixels.shape[1:])
        for start in range(0, len(pixels), rows):
            yield intake.to_uint8("images", pixels[start : start + rows], start)

    source = Source(Pool("images", values, batches), tuple(map(str, class_names)), intake)
    return with_contiguous_classes(source, "images") if labels is not None else unlabelled(source)
