"""Pictures in a terminal, animations, and text that settles."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from local.terminal import picture, resolving, save_gif

RAMP = np.arange(0, 240, 15, dtype=np.uint8).reshape(4, 4)


def printed(console: Console, image: np.ndarray) -> str:
    console.print(picture(console, image, smallest=1), end="")
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_two_rows_of_pixels_are_one_line_of_half_blocks_in_their_colours() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=40)
    lines = printed(console, RAMP).splitlines()
    assert len(lines) == 2
    assert [line.count("▀") for line in lines] == [4, 4]
    assert "38;2;0;0;0;48;2;60;60;60m▀" in lines[0]  # above 0, below 60


def test_without_colours_brightness_is_a_character() -> None:
    console = Console(file=io.StringIO(), color_system=None, width=40)
    image = np.array([[0, 255], [0, 255], [128, 0]], dtype=np.uint8)
    assert printed(console, image).splitlines() == [" @", ": "]


def test_a_small_picture_is_enlarged_by_whole_pixels_as_far_as_it_fits() -> None:
    console = Console(file=io.StringIO(), color_system=None, width=40)
    console.print(picture(console, np.array([[0, 255]] * 2, dtype=np.uint8).repeat(4, 0).repeat(4, 1)), end="")
    assert console.file.getvalue().splitlines() == [" " * 16 + "@" * 16] * 16  # type: ignore[attr-defined]
    narrow = Console(file=io.StringIO(), color_system=None, width=20)
    narrow.print(picture(narrow, np.zeros((8, 8), np.uint8)), end="")
    assert {len(line) for line in narrow.file.getvalue().splitlines()} == {16}  # type: ignore[attr-defined]


def test_a_wide_picture_is_made_to_fit() -> None:
    console = Console(file=io.StringIO(), color_system=None, width=20)
    assert max(map(len, printed(console, np.zeros((8, 90, 3), np.uint8)).splitlines())) == 20


def test_a_gif_has_every_frame_enlarged_pixel_for_pixel(tmp_path: Path) -> None:
    frames = np.stack([RAMP, RAMP.T, 255 - RAMP])
    save_gif(frames, tmp_path / "new" / "path.gif", scale=3)
    with Image.open(tmp_path / "new" / "path.gif") as opened:
        assert (opened.n_frames, opened.size) == (3, (12, 12))
        opened.seek(1)
        assert np.array_equal(np.asarray(opened.convert("L"))[::3, ::3], RAMP.T)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["path.gif"]


def test_text_is_shown_while_it_settles_in_a_terminal_only() -> None:
    stream = io.StringIO()
    with resolving(Console(file=stream)) as watch:
        assert watch is None
    with resolving(Console(file=stream, force_terminal=True, width=40)) as watch:
        assert watch is not None
        watch(3.0, ["abcx"])
        watch(1.0, ["abcd"])
    shown = stream.getvalue()
    assert "gamma 3.00" in shown
    assert "abc\x1b[2md\x1b[0m" in shown  # what changed last is dim
