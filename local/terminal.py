"""Pictures and unfinished text in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.live import Live
from rich.style import Style
from rich.text import Text

from core.printable import printable

SHADES = " .:-=+*#%@"  # for a terminal without colours
SMALLEST = 32  # rows of pixels: 8x8 is 16 lines
Texts = Callable[[float, list[str]], None]


def picture(console: Console, image: NDArray[np.uint8], *, smallest: int = SMALLEST) -> Text:
    """`image` [H, W] or [H, W, 3] as text: two rows of pixels a line as half blocks; characters without colours.

    It is made smaller if it is wider than the console; a low one larger by whole pixels, to `smallest` rows at most.
    """
    opened = Image.fromarray(image).convert("RGB")
    factor = max(1, min(console.width // opened.width, smallest // opened.height))
    opened = opened.resize((factor * opened.width, factor * opened.height), Image.Resampling.NEAREST)
    if opened.width > console.width:
        opened = opened.resize((console.width, max(1, round(opened.height * console.width / opened.width))))
    pixels = np.asarray(opened)
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    text = Text(no_wrap=True, end="")
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
            if console.color_system is None:
                level = (sum(top) + sum(bottom)) / (6 * 255)
                text.append(SHADES[round(level * (len(SHADES) - 1))])
            else:
                text.append("▀", Style(color=Color.from_rgb(*top), bgcolor=Color.from_rgb(*bottom)))
        text.append("\n")
    return text


def save_gif(frames: NDArray[np.uint8], out: Path, *, scale: int = 4, milliseconds: int = 90) -> None:
    """An endless animation of `frames` [T, H, W] or [T, H, W, 3], enlarged; the last one stays for a while."""
    pictures = [Image.fromarray(one).convert("RGB") for one in frames]
    large = [one.resize((one.width * scale, one.height * scale), Image.Resampling.NEAREST) for one in pictures]
    out.parent.mkdir(parents=True, exist_ok=True)
    times = [milliseconds] * (len(large) - 1) + [1500]
    draft = out.with_name(f".{out.name}.tmp")
    large[0].save(draft, format="GIF", save_all=True, append_images=large[1:], duration=times, loop=0)
    draft.replace(out)


@contextmanager
def resolving(console: Console) -> Iterator[Texts | None]:
    """What shows texts while they come out of noise; None where nobody watches. What still changes is dim."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield None
        return
    before: list[str] = []
    with Live(console=console, transient=True, auto_refresh=False) as live:

        def show(gamma: float, texts: list[str]) -> None:
            view, texts = Text(), [printable(text) for text in texts]
            for place, text in enumerate(texts):
                old = before[place] if place < len(before) else ""
                same = next((i for i, (a, b) in enumerate(zip(text, old, strict=False)) if a != b), len(old))
                view.append(text[:same]).append(text[same:], "dim").append("\n")
            view.append(f"gamma {gamma:.2f}", "dim")
            before[:] = texts
            live.update(view, refresh=True)

        yield show
