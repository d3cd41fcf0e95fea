"""A benchmark's result: one Markdown table on the screen and in a file, and one picture beside it."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

FOLDER = Path("build/benchmarks")


def parser(description: str | None) -> argparse.ArgumentParser:
    """What all scripts understand."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data_dir", default=os.environ.get("TEXTDIFFUSION_DATA_DIR"), help="folder of the data set")
    options.add_argument("--out", type=Path, default=FOLDER, help="folder of tables and pictures")
    return options


@contextmanager
def work_folder(kept: Path | None) -> Iterator[Path]:
    """`kept`, or a temporary folder if it is None."""
    if kept is not None:
        yield kept
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def machine() -> str:
    """What the numbers were measured on, in a line."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table whose columns are the keys of the first row."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(key)) for key in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def publish(
    name: str,
    title: str,
    rows: Sequence[dict[str, Any]],
    out: Path,
    draw: Callable[[Any], None] | None = None,
    grid: tuple[int, int] = (1, 1),
) -> None:
    """Prints the table and writes `<name>.md`, with `<name>.png` if `draw` draws into axes (and matplotlib is there).

    With a `grid` of more than one picture, rows and columns, `draw` gets all their axes, an array [rows, columns].
    """
    text = f"{title}\n\n{markdown(rows)}\n\nMeasured on {machine()}.\n"
    print(text, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    if draw is None:
        return
    if find_spec("matplotlib") is None:
        print(f"{name}.png: not drawn, matplotlib is not installed", flush=True)
        return
    from matplotlib.figure import Figure

    size = (7, 4) if grid == (1, 1) else (3.5 * grid[1], 3 * grid[0])
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.subplots(*grid, squeeze=False)
    draw(axes if axes.size > 1 else axes[0, 0])
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / f"{name}.png")
