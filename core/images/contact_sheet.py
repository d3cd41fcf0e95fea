"""A picture of a data set: one row of images for each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TILE = 56  # pixels, about; small images are enlarged by a whole number
GAP, MARGIN = 6, 20
PAPER, INK, FAINT = (250, 250, 248), (40, 40, 44), (130, 130, 136)
MAX_ROWS = 24


def contact_sheet(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    columns: int = 14,
    *,
    counts: Sequence[int],
) -> Image.Image:
    """`columns` images of each class, evenly spaced over those given, beside the class name and its count.

    Images are uint8 [N, H, W] or [N, H, W, 3]; with more than `MAX_ROWS` classes the rest is only counted.
    """
    height, width = images.shape[1:3]
    scale = max(1, TILE // max(height, width))
    reduce = max(1, -(-max(height, width) // (2 * TILE)))
    tile = (max(1, width * scale // reduce), max(1, height * scale // reduce))
    font, small = ImageFont.load_default(16), ImageFont.load_default(12)
    shown = list(class_names)[:MAX_ROWS]
    gutter = int(max([*(font.getlength(name[:16]) for name in shown), small.getlength("000,000")])) + 16
    step = tile[0] + GAP, max(tile[1], 36) + GAP
    footer = 24 if len(class_names) > MAX_ROWS else 0
    sheet = Image.new(
        "RGB",
        (2 * MARGIN + gutter + columns * step[0] - GAP, 2 * MARGIN + len(shown) * step[1] - GAP + footer),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(shown):
        members = np.flatnonzero(labels == row)
        top = MARGIN + row * step[1]
        middle = top + step[1] // 2 - GAP // 2
        draw.text((MARGIN, middle - 9), name[:16], INK, font, anchor="lm")
        draw.text((MARGIN, middle + 10), f"{counts[row]:,}", FAINT, small, anchor="lm")
        for column, place in enumerate(np.linspace(0, len(members), columns, endpoint=False).astype(int)):
            if column < len(members):
                picture = Image.fromarray(np.asarray(images[members[place]])).convert("RGB")
                how = Image.Resampling.NEAREST if reduce == 1 else Image.Resampling.LANCZOS
                sheet.paste(picture.resize(tile, how), (MARGIN + gutter + column * step[0], top))
    if footer:
        draw.text((MARGIN, sheet.height - MARGIN), f"and {len(class_names) - MAX_ROWS} more classes", FAINT, small)
    return sheet
