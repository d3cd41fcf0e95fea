"""How cost grows: time and memory against parameters, resolution, batch, width, context, samples, steps and examples.

    python -m benchmarks.growth [--repeats 3] [--short] [--only resolution,batch]

Every point runs in a fresh process, so that its peak of memory is its own; repeats go round all points, so that a busy
machine slows all of them, and medians count. Memory is what comes on top of Python with torch (on a GPU: what tensors
hold). GFLOP of training steps are counted, not measured. Slopes are those of a line through logarithms: 1 is
proportional, 2 is quadratic, less than 1 a fixed cost that still weighs. Weights are fresh: cost does not depend on
them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.devices import peak_bytes
from benchmarks.pipeline import ROOT, prepared
from benchmarks.results import parser, publish
from benchmarks.workload import Work, diffusion_work, image_work
from core.config import TrainConfig
from core.images import sampling
from core.images.config import ImageModel, ImageSample
from core.images.model import ImageShape, NoiseProcess, TrainedModel, build_network
from core.images.objective import ImageObjective
from core.modality import run_here
from core.processes import world as distributed
from core.processes.world import World, own_device
from core.requests import PrepareDataRequest
from core.storage.checkpoint import CheckpointStore
from core.text import data
from core.text.config import TextModel
from core.text.objective import OBJECTIVES
from core.training.loop import fit
from core.training.objective import Objective

CLASSES = tuple("0123456789")
VOCABULARY = 512
WARMUP, STEPS = 2, 6  # of a training: steps that are left out, steps whose median counts
Spec = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """One question: `what` against what `grows`; `spec` says what a process has to do for each of `values`.

    Where parameters grow, values are widths, and the parameters that come of them stand in the table.
    """

    grows: str
    what: str
    values: tuple[int, ...]
    spec: Callable[[int], Spec]


def images(width: int = 32, side: int = 16, batch: int = 64) -> Spec:
    return {"do": "images", "width": width, "side": side, "batch": batch}


def text(width: int = 128, context: int = 128) -> Spec:
    return {"do": "text", "width": width, "context": context, "batch": 8}


PANELS = (
    Panel("parameters", "training step, images of 16x16, batch 64", (16, 32, 64, 128), lambda x: images(width=x)),
    Panel("resolution", "training step, images, batch 64", (8, 16, 28, 32, 64), lambda x: images(side=x)),
    Panel("batch", "training step, images of 16x16", (16, 64, 256, 1024), lambda x: images(batch=x)),
    Panel("parameters of text", "training step, text, batch 8, context 128", (64, 128, 256, 512),
          lambda x: text(width=x)),
    Panel("context", "training step, text, batch 8, width 128", (64, 128, 256, 512), lambda x: text(context=x)),
    Panel("samples", "sampling, images of 16x16, 8 steps", (64, 256, 1024, 4096),
          lambda x: {"do": "sample", "count": x, "steps": 8}),
    Panel("steps", "sampling, 64 images of 16x16", (4, 16, 64, 256),
          lambda x: {"do": "sample", "count": 64, "steps": x}),
    Panel("examples", "prepare-data, images of 28x28", (10_000, 40_000, 160_000),
          lambda x: {"do": "prepare", "count": x}),
)  # fmt: skip


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=3, help="of each point; medians count")
    options.add_argument("--short", action="store_true", help="two points of each, neither the largest")
    options.add_argument("--only", help="what grows, separated by commas; default: all")
    options.add_argument("--do", nargs=2, metavar=("SPEC", "FOLDER"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.do:
        print(json.dumps(perform(json.loads(chosen.do[0]), Path(chosen.do[1]))))
        return
    wanted = chosen.only.split(",") if chosen.only else [panel.grows for panel in PANELS]
    panels = [panel for panel in PANELS if panel.grows in wanted]
    points = [(panel, value) for panel in panels for value in (panel.values[:2] if chosen.short else panel.values)]
    rows = measure(points, chosen.repeats)
    slopes = {panel.grows: slope_row(panel, [row for row in rows if row["grows"] == panel.grows]) for panel in panels}
    table = [line for name, slope in slopes.items() for line in [*(r for r in rows if r["grows"] == name), slope]]
    columns = 1 + (len(panels) - 1) // 2
    publish("growth", f"How cost grows, medians of {chosen.repeats}", table, chosen.out,
            lambda axes: draw(axes, panels, rows, slopes), (-(-len(panels) // columns), columns))  # fmt: skip


def measure(points: Sequence[tuple[Panel, int]], repeats: int) -> list[dict[str, Any]]:
    """A row for each point: medians of seconds and megabytes over `repeats` rounds, and the GFLOP that were counted."""
    found: list[list[dict[str, float]]] = [[] for _ in points]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        if any(panel.spec(value)["do"] == "text" for panel, value in points):
            tokenizer = {"vocabulary": VOCABULARY}
            source = {"source": "pydoc", "tokenizer": tokenizer}
            run_here(PrepareDataRequest(modality="text", data=source, out=Path(scratch) / "text"))
        for _ in range(repeats):
            for (panel, value), place in zip(points, found, strict=True):
                place.append(in_a_process(panel.spec(value), Path(scratch)))
    rows = []
    for (panel, value), runs in zip(points, found, strict=True):
        cost = work(panel.spec(value))
        rows.append(
            {
                "what": panel.what,
                "grows": panel.grows,
                "value": cost.parameters if cost and panel.grows.startswith("parameters") else value,
                "GFLOP": cost and cost.flop * panel.spec(value)["batch"] / 1e9,
                "seconds": statistics.median(run["seconds"] for run in runs),
                "MB": statistics.median(run["bytes"] for run in runs) / 1e6,
            }
        )
    return rows


def in_a_process(spec: Spec, scratch: Path) -> dict[str, float]:
    """`perform` in a process of its own."""
    if spec["do"] == "prepare":
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            found = prepared(spec["count"], Path(folder) / "set")
        return {"seconds": found["wall"], "bytes": found["bytes"] - found["before"]}
    command = [sys.executable, "-m", "benchmarks.growth", "--do", json.dumps(spec), str(scratch)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{spec} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def perform(spec: Spec, scratch: Path) -> dict[str, float]:
    """Seconds, and bytes of the peak above what was there before, of what `spec` says."""
    where = own_device()
    torch.zeros(1, device=where)
    before = peak_bytes(where)
    if spec["do"] == "sample":
        seconds = sample_seconds(spec["count"], spec["steps"])
    else:
        seconds = step_seconds(image_objective(spec) if spec["do"] == "images" else text_objective(spec, scratch),
                               spec["batch"])  # fmt: skip
    return {"seconds": seconds, "bytes": peak_bytes(where) - before}


def step_seconds(objective: Objective, batch: int) -> float:
    """The median step of a training by the loop that jobs use, which ends with one validation and one checkpoint."""
    settings = TrainConfig(examples=(WARMUP + STEPS) * batch, batch_size=batch, log_every=1, validate_every=1.0,
                           preview_every=1.0)  # fmt: skip
    with tempfile.TemporaryDirectory() as work, distributed.world() as world:
        rows = fit(objective, settings, CheckpointStore(work), world).log
    rates = [row["rate"] for row in rows if "rate" in row][WARMUP:]
    return batch / statistics.median(rates)


def image_model(width: int = 32) -> ImageModel:
    """The network of the job `digits`, of any width."""
    return ImageModel.model_validate({"network": {"name": "unet", "channels": [width, 2 * width], "blocks": [1, 2]}})


def image_shape(side: int = 16) -> ImageShape:
    return ImageShape(channels=1, height=side, width=side, class_names=CLASSES)


def text_model(spec: Spec) -> TextModel:
    transformer = {"width": spec["width"], "depth": 4, "heads": spec["width"] // 32}
    return TextModel.model_validate({"context": spec["context"], "transformer": transformer})


def image_objective(spec: Spec) -> Objective:
    """Training on grey noise, which costs what digits cost."""
    pixels = np.random.default_rng(0).integers(0, 256, (1024, spec["side"], spec["side"]), np.uint8)
    labels = np.arange(len(pixels)) % len(CLASSES)
    held_out = (pixels[:8], labels[:8])
    return ImageObjective(image_model(spec["width"]), image_shape(spec["side"]), (pixels, labels), held_out)


def text_objective(spec: Spec, scratch: Path) -> Objective:
    return OBJECTIVES["diffusion"](text_model(spec), data.load(scratch / "text"), 0)


def sample_seconds(count: int, steps: int) -> float:
    """Drawing images with fresh weights; the first evaluation, which warms up, is not counted."""
    model, shape, where = image_model(), image_shape(), own_device()
    network = build_network(model, shape).to(where).eval()
    trained = TrainedModel(network, NoiseProcess(model.process), shape, model, {})

    def draw_images(count: int, steps: int) -> None:
        settings = ImageSample(count=count, steps=steps)
        labels = sampling.choose_labels(settings, trained)
        sampling.draw(trained, settings, labels, sampling.choose_sigmas(settings, trained.process), World(0, 1, where))

    draw_images(min(count, 64), 1)
    began = time.perf_counter()
    draw_images(count, steps)
    return time.perf_counter() - began


def work(spec: Spec) -> Work | None:
    """What a training costs, counted; None for what is no training."""
    if spec["do"] == "images":
        return image_work(image_model(spec["width"]), image_shape(spec["side"]))
    return diffusion_work(text_model(spec), VOCABULARY) if spec["do"] == "text" else None


def slope(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Of the least-squares line through (ln x, ln y): the exponent of a power law. None where there is none."""
    if len(x) < 2 or min(*x, *y) <= 0:
        return None
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def slope_row(panel: Panel, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The slopes of one panel's columns against what grows."""
    x = [row["value"] for row in rows]
    line: dict[str, Any] = {"what": "**slope**", "grows": panel.grows, "value": None}
    for name in ("GFLOP", "seconds", "MB"):
        line[name] = None if rows[0][name] is None else slope(x, [row[name] for row in rows])
    return line


def draw(axes: Any, panels: Sequence[Panel], rows: list[dict[str, Any]], slopes: dict[str, dict[str, Any]]) -> None:
    """Small multiples: every quantity as a multiple of its smallest, on logarithmic axes."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    places = np.atleast_1d(axes).flat
    for panel, place in zip(panels, places, strict=False):
        mine = [row for row in rows if row["grows"] == panel.grows]
        if len(mine) < 2:
            continue
        for name, color in (("seconds", "#0f6b78"), ("MB", "#b3541e"), ("GFLOP", "#8a8a8a")):
            values, found = [row[name] for row in mine], slopes[panel.grows][name]
            if found is not None:
                relative = [value / values[0] for value in values]
                label = f"{name}, slope {found:.2f}"
                place.loglog([row["value"] for row in mine], relative, "o-", color=color, markersize=4, label=label)
        x = [row["value"] for row in mine]
        place.set_xticks(x, [f"{value:,}" if value < 10_000 else f"{value / 1000:,.0f}k" for value in x], fontsize=7)
        place.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        place.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        place.minorticks_off()
        place.set_title(panel.what, fontsize=8)
        place.set_xlabel(panel.grows)
        place.set_ylabel("of the smallest")
        place.legend(frameon=False, fontsize=7)


if __name__ == "__main__":
    main()
