"""What the pixels of a source hold before they become uint8: their range, transparency, and what was changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError
from core.images.config import ImageData
from core.sources.summary import Tally

FAINT, DIM = 8, 2  # pixels that use less than an eighth of their range are refused, less than a half warned of
NAMED = 3  # images named in a refusal of many


class Intake:
    """Takes pixels of any type in, as `config` says, and remembers what must be judged when all were seen.

    One for each source: readers call `to_uint8` and `on_background`, prepare-data calls `check` at the end.
    """

    def __init__(self, config: ImageData, tally: Tally | None = None) -> None:
        self.config, self.tally = config, tally if tally is not None else Tally()
        self.transparent: list[str] = []
        self._low, self._high = 1.0, 0.0  # of all pixels, as shares of what their type can hold
        self._native = (0.0, 0.0, 1.0)  # low, high and most of the type of the brightest pixels

    def to_uint8(
        self, where: str, native: NDArray[Any], start: int = 0, most: float | None = None
    ) -> NDArray[np.uint8]:
        """Pixels 0..255 of `native` [B, H, W(, 3)], images `start`.. of `where`.

        Args:
            where: names the images in errors.
            native: uint8, other integers, floats or truth values.
            start: number of the first image.
            most: the value of white; None: 255 for integers, 1 for floats.

        Raises:
            UserError: a value is no number, or outside 0..most while data.value_range is not set.
        """
        if native.dtype.kind == "b":
            native = native.astype(np.uint8) * np.uint8(255)
        most = most or (1 if native.dtype.kind == "f" else 255)
        if self.config.value_range is not None:
            return self._scaled(where, native, start, self.config.value_range)
        if native.dtype != np.uint8:
            _require_range(where, native, start, most)
        self._remember(float(native.min()), float(native.max()), most)
        if most == 255:
            return native.astype(np.uint8, copy=False)
        if most == 65535:
            return (native // 257).astype(np.uint8)
        return np.rint(native * (255 / most)).astype(np.uint8)

    def _scaled(self, where: str, native: NDArray[Any], start: int, wanted: tuple[float, float]) -> NDArray[np.uint8]:
        low, high = wanted
        if native.dtype.kind == "f" and np.isnan(native).any():
            _require_range(where, native, start, high)
        outside = ((native < low) | (native > high)).reshape(len(native), -1).any(1)
        self.tally.count("clipped", int(outside.sum()))
        return np.rint((native.astype(np.float64).clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)

    def _remember(self, low: float, high: float, most: float) -> None:
        self._low = min(self._low, low / most)
        if high / most >= self._high:
            self._high, self._native = high / most, (low, high, most)

    def noticed(self) -> dict[str, Any]:
        """What was noticed so far, as JSON has it."""
        seen = {"low": self._low, "high": self._high, "native": self._native}
        return {"counts": self.tally.counts, "transparent": self.transparent, **seen}

    def add(self, noticed: Mapping[str, Any]) -> None:
        """What another one noticed of the images after those that this one has seen."""
        for what, number in noticed["counts"].items():
            self.tally.count(what, number)
        self.transparent += noticed["transparent"]
        self._low = min(self._low, noticed["low"])
        if noticed["high"] >= self._high:
            self._high, self._native = noticed["high"], tuple(noticed["native"])

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Images that are read meanwhile will be read again: they are not counted."""
        counts, transparent = dict(self.tally.counts), list(self.transparent)
        yield
        self.tally.counts, self.transparent = counts, transparent

    def on_background(self, name: str, image: Image.Image) -> Image.Image:
        """`image`, which may have an alpha channel, on data.background: mode L or RGB.

        Without a background its name is kept for `check`.
        """
        grey = image.mode in ("LA", "La", "L", "1", "PA") and not image.getpalette()
        if image.convert("RGBA").getchannel("A").getextrema() == (255, 255):
            return image.convert("RGB").convert("L") if grey else image.convert("RGB")
        self.tally.count("transparent")
        if self.config.background is None:
            self.transparent.append(name)
        sheet = Image.new("RGBA", image.size, self.config.background or "white")
        sheet.alpha_composite(image.convert("RGBA"))
        flat = sheet.convert("RGB")
        return flat.convert("L") if grey and is_grey(flat) else flat

    def range_seen(self) -> tuple[float, float]:
        """Least and greatest value of the pixels so far, in their own units."""
        low, high, most = self._native
        return min(low, self._low * most), high

    def _uses_less_than(self, parts: int) -> bool:
        """Whether pixels so far use less than one of `parts` equal parts of what they could."""
        return (self._high - self._low) * parts < 1

    def wanted_range(self) -> tuple[float, float] | None:
        """What data.value_range should be for the pixels so far; None if it is of no use."""
        low, high = self.range_seen()
        return (low, high) if low < high and self._uses_less_than(DIM) else None

    def check(self, where: str) -> None:
        """Judges what was seen of all images; warnings go to the tally.

        Raises:
            UserError: images are transparent and no background is set, or nearly all their range is unused.
        """
        if self.transparent:
            names = ", ".join(self.transparent[:NAMED]) + (", ..." if len(self.transparent) > NAMED else "")
            count = len(self.transparent)
            raise UserError(
                f"{where}: {count} image{'s have' if count > 1 else ' has'} transparent pixels ({names}); set"
                " data.background to white, black or '#rrggbb'"
            )
        if self.config.value_range is not None or self._high < self._low:
            return
        (low, high), most = self.range_seen(), self._native[2]
        range_seen, setting = f"{low:g} to {high:g} of 0 to {most:g}", f"data.value_range: [{low:g}, {high:g}]"
        if low == high:
            raise UserError(f"{where}: every pixel is {low:g}; there is nothing to learn")
        if self._uses_less_than(FAINT):
            raise UserError(
                f"{where}: pixels have values from {range_seen}, so images would be nearly flat; set {setting}"
            )
        if self._uses_less_than(DIM):
            self.tally.warnings.append(
                f"pixels have values from {range_seen} only; {setting} would use the whole range"
            )


def _require_range(where: str, native: NDArray[Any], start: int, most: float) -> None:
    wrong = ~((native >= 0) & (native <= most))  # true for NaN too
    if wrong.any():
        index = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        value = "NaN" if np.isnan(native[index]) else native[index]
        allowed = "floats from 0 to 1" if most == 1 else f"integers from 0 to {most:g}"
        raise UserError(
            f"{where}: image {start + int(index[0])} has the value {value}; allowed are {allowed}, or what"
            " data.value_range says"
        )


def is_grey(image: Image.Image) -> bool:
    """Whether the channels of an RGB image are equal."""
    pixels = np.asarray(image)
    return bool((pixels == pixels[..., :1]).all())
