"""Images as tensors, as uint8 arrays, as PNG and npz files, and grids of them."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

GRID_ROWS = 10


def to_float(images: Tensor) -> Tensor:
    """uint8 [N, H, W] or [N, H, W, 3] -> float32 [N, C, H, W] in [-1, 1]"""
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """float [N, C, H, W] in [-1, 1] (clipped) -> uint8 [N, H, W] or [N, H, W, 3]"""
    pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    array: NDArray[np.uint8] = pixels.contiguous().numpy()
    return array[..., 0] if array.shape[-1] == 1 else array


def grid(images: NDArray[np.uint8], columns: int, *, gap: int = 1, shade: int = 64) -> NDArray[np.uint8]:
    """Images [N, H, W(, 3)] in rows of `columns`, `gap` pixels of grey `shade` between and around them."""
    count, height, width = images.shape[:3]
    rows = math.ceil(count / columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, *images.shape[3:])
    canvas = np.full(shape, shade, np.uint8)
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def fitting_columns(count: int, most: int = 10) -> int:
    """Columns, `most` at most, for as few rows as that allows, and as few empty cells as those allow."""
    return math.ceil(count / math.ceil(count / most))


def grid_by_class(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A column for each class (twelve at most), ten rows; of one class or without classes, the first hundred."""
    classes = np.unique(labels)[:12]
    rows = min([GRID_ROWS, *(int((labels == c).sum()) for c in classes)])
    if len(classes) == 1:
        images = images[: GRID_ROWS * 10]
        return grid(images, columns=fitting_columns(len(images)))
    chosen = [np.flatnonzero(labels == c)[row] for row in range(rows) for c in classes]
    return grid(images[chosen], columns=len(classes))


def enlarged(image: NDArray[np.uint8], smallest_side: int = 320) -> Image.Image:
    """[H, W] or [H, W, 3] enlarged by whole pixels until its smaller side has `smallest_side`."""
    factor = max(1, math.ceil(smallest_side / min(image.shape[:2])))
    return Image.fromarray(image.repeat(factor, 0).repeat(factor, 1))


def png(image: NDArray[np.uint8]) -> bytes:
    """PNG bytes of [H, W] or [H, W, 3], enlarged in the same way."""
    buffer = io.BytesIO()
    enlarged(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def npz(**arrays: NDArray[Any]) -> bytes:
    """Arrays by name as a compressed .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
