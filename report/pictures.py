"""Pixels to data URIs, within a byte budget, so that the page stays one small file."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Pixels = np.ndarray[Any, Any]
TILE_PIXELS = 64  # larger images are reduced to this in grids


def as_pixels(images: Pixels) -> Pixels | None:
    """Images as uint8 `[N, H, W]` or `[N, H, W, 3]`; None if the array is anything else."""
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim == 4 and images.shape[-1] == 4:
        images = images[..., :3]
    if images.size == 0 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        return None
    if images.dtype != np.uint8:
        images = np.clip(np.nan_to_num(images.astype(np.float64)), 0, 255).astype(np.uint8)
    return images


def png(image: Pixels, longest: int | None = None) -> str:
    """One image as a `data:image/png` URI, made smaller when a side exceeds `longest` pixels."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    if longest and max(picture.size) > longest:
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return _uri(picture)


def png_file(path: Path, longest: int) -> tuple[str, int, int]:
    """A picture file re-encoded as a PNG data URI with its width and height. Raises OSError if it is no picture."""
    with Image.open(path) as opened:
        # The length check comes before decoding: a bomb is refused by Pillow, a large picture is reduced.
        picture = opened.convert("L" if opened.mode in ("L", "1") else "RGB")
    picture = Image.fromarray(unenlarged(np.asarray(picture)))
    if max(picture.size) > longest:
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return _uri(picture), picture.width, picture.height


def unenlarged(picture: Pixels) -> Pixels:
    """A picture that was enlarged by whole pixels at its own size again: the browser enlarges it as crisply."""
    factor = 0
    for axis in (0, 1):
        lines = np.moveaxis(picture, axis, 0)
        changes = (lines[1:] != lines[:-1]).any(axis=tuple(range(1, lines.ndim)))
        factor = math.gcd(factor, len(lines), *(np.flatnonzero(changes) + 1).tolist())
    return picture[::factor, ::factor]


def sheet(images: Pixels, columns: int, gap: int = 0, ground: int = 0) -> Pixels:
    """`[N, H, W(, 3)]` laid out row by row in one picture, `gap` pixels apart."""
    height, width = images.shape[1:3]
    rows = math.ceil(len(images) / columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, *images.shape[3:])
    page = np.full(shape, ground, np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        page[top : top + height, left : left + width] = image
    return page


def columns_for(number: int, height: int, width: int, aspect: float = 1.0) -> int:
    """How many columns give a sheet of `number` tiles an aspect near `aspect`, preferring a full last row."""
    ideal = math.sqrt(number * aspect * height / width)
    options = range(max(1, math.floor(ideal * 0.7)), max(2, math.ceil(ideal * 1.4)) + 1)
    return min(options, key=lambda columns: (-number % columns / columns + abs(math.log(columns / ideal)), columns))


def within(number: int, image_bytes: int, budget: int) -> int:
    """How many of `number` images of `image_bytes` fit `budget`; at least one."""
    return max(1, min(number, budget // max(1, image_bytes)))


def _uri(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=picture.width * picture.height < 20_000, compress_level=9)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
