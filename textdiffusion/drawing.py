"""Arrays as pictures: PIL images, which notebooks show and `save` writes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError
from core.images import pictures


def grid(images: NDArray[np.uint8] | Any, columns: int | None = None) -> Image.Image:
    """Many images as one picture, enlarged by whole pixels.

    Args:
        images: uint8 [N, H, W] or [N, H, W, 3].
        columns: images in a row; left out: about as many as rows.

    Raises:
        UserError: these are no images.
    """
    pixels = _pixels(images, (3, 4), "[N, H, W] or [N, H, W, 3]")
    if columns is not None and columns < 1:
        raise UserError(f"columns: found {columns}; expected 1 or more")
    return pictures.enlarged(pictures.grid(pixels, columns or math.ceil(math.sqrt(len(pixels)))))


def picture(image: NDArray[np.uint8] | Any) -> Image.Image:
    """One image, uint8 [H, W] or [H, W, 3], enlarged by whole pixels.

    Raises:
        UserError: this is no image.
    """
    return pictures.enlarged(_pixels(image, (2, 3), "[H, W] or [H, W, 3]"))


def _pixels(images: Any, dimensions: tuple[int, int], allowed: str) -> NDArray[np.uint8]:
    pixels = np.asarray(images)
    colours = pixels.shape[-1] if pixels.ndim == dimensions[1] else 3
    if pixels.dtype != np.uint8 or pixels.ndim not in dimensions or 0 in pixels.shape or colours != 3:
        raise UserError(f"images: found {pixels.dtype} of shape {pixels.shape}; expected uint8 {allowed}")
    return pixels
