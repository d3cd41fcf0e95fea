"""A job for a person's own images, from a look at them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from core.images.sources.intake import Intake
    from core.images.sources.source import Item

LOOKED_AT = 200  # image files whose sizes and pixels are read
SIDES = (16, 20, 24, 28, 32)  # that a small network on a CPU learns in minutes; larger images become the largest
EXAMPLES = (30_000, 250_000)  # of training: the most are what MNIST's good samples take (docs/benchmarks.md)
PASSES = 300  # over few images, which more would be learned by heart
MINUTES = (5.0, 60.0)  # least and most that is written, whatever the speed
BATCH = 64
Values = dict[str, Any]


@dataclass
class Seen:
    """What a look at images found: their sizes, whether any is coloured or transparent, and how they come in."""

    source: str
    images: int
    classes: tuple[str, ...]  # none: an unconditional data set
    sizes: set[tuple[int, int]] = field(default_factory=set)  # (height, width)
    coloured: bool = False
    transparent: bool = False
    test: int = 0
    value_range: tuple[float, float] | None = None  # where their own is a small part of what their type can hold

    @property
    def side(self) -> int:
        """The side in pixels that the job asks for: their own if they are square and small, else one to shrink to."""
        smallest = min(min(size) for size in self.sizes)
        if len(self.sizes) == 1 and len(set(next(iter(self.sizes)))) == 1 and 4 <= smallest <= SIDES[-1]:
            return smallest
        return next((side for side in reversed(SIDES) if side <= smallest), SIDES[0])

    @property
    def kept(self) -> float:
        """Least share of an image's pixels inside the square in its middle that is trained on."""
        return min(min(size) / max(size) for size in self.sizes)


def images_job(name: str, inner: str, place: str) -> tuple[Values, list[str]]:
    """The sections of the job `name` for the images in `inner`, which unpacked are those at `place`, and notes.

    Raises:
        UserError: they cannot be read, or not be split.
    """
    from core.images.networks import network_for

    seen = look_at_images(inner)
    side, labelled = seen.side, bool(seen.classes)
    channels: Literal[1, 3] = 3 if seen.coloured else 1
    network = network_for(side, side)
    shown: Values = {
        "name": "unet",
        "channels": list(network.channels),
        "blocks": list(network.blocks),
        "patch": network.patch,
    }
    if not network.attention:
        shown["attention"] = False
    speed = examples_per_second(network, side, channels)
    examples = float(np.clip(PASSES * seen.images, *EXAMPLES))
    minutes = float(np.clip(round(examples / speed / 60), *MINUTES))
    count = max(20, min(1000, seen.test))
    values: Values = {
        "description": f"{seen.images:,} images of {_kinds(seen)} from {Path(place).name}",
        "modality": "images",
        "data": {"source": seen.source, "data_dir": place, "resolution": side, "channels": channels},
        "model": {"network": {"name": "unet", **shown}, "process": {"sigma_data": "auto"}, "conditional": labelled},
        "train": {
            "minutes": minutes,
            "batch_size": BATCH,
            "optimizer": "muon",
            "learning_rate": 2.0e-3,
            "warmup_examples": 3000,
            "guide_at": 0.1,
        },
        "sample": {
            "count": count,
            "sampler": "dpmpp_sde",
            "steps": 16,
            "sigma_max": 20.0,
            "start": "estimate",
            "guidance": 1.2 if labelled else 1.0,
            "guidance_low": 0.2,
            "guidance_high": 5.0,
            "autoguidance": 1.25,
            "feedback": 0.1 if labelled else 0.0,
        },
        "evaluate": {"count": count, "judge_epochs": 20},
        "gate": {"metric": "frechet_distance", "better": "lower"},
    }
    if seen.transparent:
        values["data"]["background"] = "white"
    if seen.value_range:
        values["data"]["value_range"] = list(seen.value_range)
    return values, _notes(seen, name, speed, minutes)


def _notes(seen: Seen, name: str, speed: float, minutes: float) -> list[str]:
    """What the user of the job `name` should know, a line each; `speed` in images a second."""
    from core.images.judge import FEATURES

    sizes, kinds = sorted(seen.sizes), _kinds(seen)
    shape = f"{sizes[0][1]} x {sizes[0][0]}" + (f" to {sizes[-1][1]} x {sizes[-1][0]}" if len(sizes) > 1 else "")
    notes = [
        f"{seen.images:,} {'coloured' if seen.coloured else 'grey'} images of {shape} pixels, {kinds}",
        f"they are trained on at {seen.side} x {seen.side}; about {speed:,.0f} images a second here, so"
        f" {minutes:g} minutes see {minutes * 60 * speed:,.0f};"
        f" with judge, samples and measures about {minutes * 1.2 + 1:.0f} minutes in all",
    ]
    if seen.transparent:
        notes.append("some are transparent: data.background: white shows through")
    if seen.kept < 1:
        notes.append(f"only the square in the middle of each is taken: of the longest, {seen.kept:.0%}")
    if seen.value_range:
        low, high = seen.value_range
        notes.append(f"pixels have values from {low:g} to {high:g} only: data.value_range makes that black to white")
    if seen.test < 100:
        notes.append(f"{seen.test} test images are few (data.test_fraction): measures will be rough")
    if seen.test <= FEATURES:
        notes.append(
            f"with {FEATURES} or fewer a first model is provisional: registered, but not in service until"
            f" textdiffusion promote {name}@1; gate.first_floors: 0 promotes any first model"
        )
    return notes


def _kinds(seen: Seen) -> str:
    return f"{len(seen.classes)} classes" if seen.classes else "no classes"


def look_at_images(place: str) -> Seen:
    """Sizes, colours and classes of the images at `place`, from the first pixels of each part and `LOOKED_AT` files.

    Raises:
        UserError: they cannot be read, or not be split.
    """
    from core.images.config import ImageData
    from core.images.sources import kind_of, open_source
    from core.images.split import assign_splits

    source = kind_of(place)
    config = ImageData(source=source, data_dir=place, resolution=SIDES[-1])  # photos of any size can be looked at
    with open_source(config) as opened:
        splits = assign_splits(opened, config)
        test = sum(int((codes == 2).sum()) for codes in splits.values())
        pools = [pool for pool in (opened.train, opened.validation, opened.test) if pool is not None]
        images = sum(len(pool.labels) for pool in pools)
        seen = Seen(source, images, opened.class_names if opened.labelled else (), test=test)
        if opened.train.items is None:
            first = next(iter(opened.train.batches()))
            seen.sizes.add((int(first.shape[1]), int(first.shape[2])))
            seen.coloured = first.ndim == 4
        else:
            every = max(1, images // LOOKED_AT)
            files = (item for pool in pools if pool.items for item in pool.items())
            _look_at_files(islice(files, 0, None, every), seen, opened.intake)
        seen.value_range = opened.intake.wanted_range()
    return seen


def _look_at_files(items: Iterable[Item], seen: Seen, intake: Intake) -> None:
    from PIL import Image

    from core.images.sources.decode import decode, formats
    from core.images.sources.intake import is_grey

    for item in items:
        with item.open() as stream:
            image = decode(item.name, stream, intake, formats())
            stream.seek(0)
            width, height = Image.open(stream, formats=formats()).size  # a photo may have been shrunk
        upright = (width > height) == (image.width > image.height)
        seen.sizes.add((height, width) if upright else (width, height))
        seen.coloured |= image.mode == "RGB" and not is_grey(image)
    seen.transparent = bool(intake.transparent)


def examples_per_second(network: Any, side: int, channels: Literal[1, 3]) -> float:
    """How many examples a second a training of this network takes on this machine as it is now: a few steps of it."""
    import torch

    from core.images.model import ImageShape
    from core.images.networks import NETWORKS
    from core.processes.world import own_device

    device = own_device()
    names = tuple(str(digit) for digit in range(10))
    shape = ImageShape(channels=channels, height=side, width=side, class_names=names)
    model = import_module(NETWORKS[network.name]).build(network, shape).to(device)
    batch = torch.zeros(BATCH, channels, side, side, device=device)
    level, labels = torch.zeros(BATCH, device=device), torch.zeros(BATCH, dtype=torch.long, device=device)
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        model(batch, level, labels).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - began)
    return BATCH / (1.15 * min(seconds[1:]))  # the optimizer takes its part
