"""Batches of images that are encoded one by one: blocks of them are decoded by several processes of this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.images.config import ImageData
from core.images.sources import decode
from core.images.sources.intake import Intake, is_grey
from core.images.sources.source import Batch, Item, rows_per_batch
from core.processes import blocks

BLOCK = 256  # images decoded by one process at a time
BLOCK_BYTES = 16 << 20  # of their files, where those are in memory
ALONE = 2.0  # seconds; what takes no longer is decoded here


@dataclass(frozen=True)
class First:
    """The first image of all, which the others must be like."""

    name: str
    shape: tuple[int, ...]  # (H, W) or (H, W, 3)
    channels: int

    @classmethod
    def parse(cls, facts: Mapping[str, Any]) -> First:
        """What `asdict` and JSON made of one."""
        return cls(facts["name"], tuple(facts["shape"]), facts["channels"])


def batches(items: Iterable[Item], intake: Intake, processes: int | None = None) -> Iterator[Batch]:
    """The images of `items` in order, uint8 [B, H, W] or [B, H, W, 3]; the same for any number of processes.

    Args:
        items: the images.
        intake: what is noticed goes there.
        processes: None: one for each processor, where `ALONE` seconds are not enough.

    Raises:
        UserError: an image cannot be read, or is not like the others; it is named.
    """
    began, rest = time.monotonic(), iter(items)
    head = next(rest, None)
    if head is None:
        return
    pixels, first = pixels_of([head], intake, None)
    yield pixels
    parts = parts_of(rest, min(BLOCK, rows_per_batch(first.shape)))
    while processes is None and time.monotonic() - began < ALONE:
        part = next(parts, None)
        if part is None:
            return
        yield pixels_of(part, intake, first)[0]
    asked = ((_facts(intake.config, first), Item.packed(part)) for part in parts)
    for noticed, answer in blocks.in_order(decoded, asked, processes):
        intake.add(noticed)
        yield answer["pixels"]


def parts_of(items: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Up to `most` items, and not many more than `BLOCK_BYTES` of content, at a time."""
    part, size = list[Item](), 0
    for item in items:
        part.append(item)
        size += len(item.content or b"")
        if len(part) == most or size >= BLOCK_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _facts(config: ImageData, first: First) -> dict[str, Any]:
    return {"config": config.model_dump(mode="json"), "first": asdict(first)}


def decoded(block: blocks.Block) -> blocks.Block:
    """A block of images: their pixels, and what was noticed of them."""
    facts, packed = block
    intake = Intake(ImageData.model_validate(facts["config"]))
    pixels, _ = pixels_of(Item.unpacked(packed), intake, First.parse(facts["first"]))
    return intake.noticed(), {"pixels": pixels}


def pixels_of(items: Iterable[Item], intake: Intake, first: First | None) -> tuple[Batch, First]:
    """The pixels of `items`, which must be like the first image; that is the first of them where it is None.

    Raises:
        UserError: an image cannot be read, or is not like the first; it is named.
    """
    config, allowed = intake.config, decode.formats()
    rows: list[NDArray[np.uint8]] = []
    for item in items:
        with item.open() as stream:
            image = decode.decode(item.name, stream, intake, allowed)
        channels = first.channels if first else config.channels
        if channels == "auto":
            channels = 1 if image.mode == "L" else 3
        if channels == 1 and config.channels == "auto" and image.mode == "RGB" and first and not is_grey(image):
            raise UserError(f"{item.name}: is coloured, while {first.name} is grey; set data.channels to 1 or 3")
        if channels == 3 and image.mode == "L":
            intake.tally.count("grey")
        if config.resolution is not None:
            image = decode.fitted(image, config.resolution, intake)
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        first = first or First(item.name, pixels.shape, channels)
        if pixels.shape != first.shape:
            raise UserError(
                f"{item.name}: {pixels.shape[1]} x {pixels.shape[0]} pixels, while {first.name} has"
                f" {first.shape[1]} x {first.shape[0]}; all must be equal, or set data.resolution to crop and resize"
            )
        rows.append(pixels)
    assert first is not None
    return np.stack(rows), first
