"""A job for a person's own data, from a look at them: what `textdiffusion init NAME --data PLACE` writes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
<<<<<<< HEAD
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
=======
>>>>>>> own

from core import storage
from core.config import validate
from core.errors import UserError
from core.names import inside
from core.sources.archives import unpacked
from core.sources.config import HubPlace
from core.sources.huggingface import holds_data_set, loaded
from core.sources.listing import listing
from core.sources.summary import Tally
from core.text.long_text import Decoding, NotUTF8Error
from factory.own_images import Values, images_job

PROSE = (".txt", ".text", ".md", ".markdown", ".rst")  # how files of text end that are read together


def own_job(name: str, place: str) -> tuple[Values, list[str]]:
    """The sections of a job for the data at `place`, and what was seen and decided, a line each.

    Raises:
        UserError: there are no data that can be read, or they cannot be used together.
    """
    if storage.is_remote(place):
        raise UserError(f"--data: {place} is in a bucket; look at a copy of some of it here, then set data.data_dir")
    if not Path(place).exists():
        raise UserError(f"--data: {place}: no such file or folder")
    with unpacked(place, Tally()) as inner:
        files = listing(inner).files if Path(inner).is_dir() else [Path(inner).name]
        if not files:
            raise UserError(f"--data: {place}: is empty; it must have images or text")
        if _are_images(inner, files):
            values, notes = images_job(name, inner, place)
        else:
            values, notes = _text_job(inner, place, files)
    return {"job": name, **values}, notes


def _are_images(inner: str, files: list[str]) -> bool:
    from core.images.sources.decode import suffixes

    if any(name.endswith(".npz") or "ubyte" in name or name.lower().endswith(suffixes()) for name in files):
        return True
<<<<<<< HEAD
    return any(name.lower().endswith(suffixes()) for name in files)


# --- images


def _images_job(inner: str, place: str, _: list[str]) -> tuple[Values, list[str]]:
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
    kinds = f"{len(seen.classes)} classes" if labelled else "no classes"
    values: Values = {
        "description": f"{seen.images:,} images of {kinds} from {Path(place).name}",
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
        },
        "evaluate": {"count": count, "judge_epochs": 20},
        "gate": {"metric": "frechet_distance", "better": "lower"},
    }
    if seen.transparent:
        values["data"]["background"] = "white"
    if seen.value_range:
        values["data"]["value_range"] = list(seen.value_range)
    sizes = sorted(seen.sizes)
    shape = f"{sizes[0][1]} x {sizes[0][0]}" + (f" to {sizes[-1][1]} x {sizes[-1][0]}" if len(sizes) > 1 else "")
    notes = [
        f"{seen.images:,} {'coloured' if seen.coloured else 'grey'} images of {shape} pixels, {kinds}",
        f"they are trained on at {side} x {side}; about {speed:,.0f} images a second here, so {minutes:g} minutes see"
        f" {minutes * 60 * speed:,.0f}; with judge, samples and measures about {minutes * 1.2 + 1:.0f} minutes in all",
    ]
    if seen.transparent:
        notes.append("some are transparent: data.background: white shows through")
    if seen.kept < 1:
        notes.append(f"only the square in the middle of each is taken: of the longest, {seen.kept:.0%}")
    if seen.value_range:
        low, high = seen.value_range
        notes.append(f"pixels have values from {low:g} to {high:g} only: data.value_range makes that black to white")
    if seen.test < 100:
        notes.append(f"{seen.test} test images are few: measures will be rough")
    return values, notes


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
        if source == "folder":
            _look_at_files(place, seen, opened.intake)
        else:
            first = next(iter(opened.train.batches()))
            seen.sizes.add((int(first.shape[1]), int(first.shape[2])))
            seen.coloured = first.ndim == 4
        seen.value_range = opened.intake.wanted_range()
    return seen


def _look_at_files(place: str, seen: Seen, intake: Intake) -> None:
    from PIL import Image

    from core.images.sources.decode import decode, formats, suffixes
    from core.images.sources.intake import is_grey
    from core.names import inside

    names = [name for name in listing(place).files if name.lower().endswith(suffixes())]
    for name in names[:: max(1, len(names) // LOOKED_AT)]:
        with storage.open_read(inside(place, name, links=True)) as stream:
            image = decode(name, stream, intake, formats())
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


# --- text
=======
    if not holds_data_set(inner):
        return False
    with loaded(inner, HubPlace(), Tally()) as parts:
        return any(type(feature).__name__ == "Image" for feature in parts["train"].features.values())
>>>>>>> own


def _text_job(inner: str, place: str, files: list[str]) -> tuple[Values, list[str]]:
    from core.text.config import TextData
    from core.text.source import read_source

    chosen: Values = {"source": "file"}
    notes = []
    if holds_data_set(inner):
        chosen["source"] = "huggingface"
    elif Path(inner).is_dir():
        read, left = _kinds_of_text(inner, files)
        if not read:
            raise UserError(f"--data: {place}: has neither images nor text; there are {_counted(left)}")
        chosen |= {"suffixes": list(read)} if list(read) != [".txt"] else {}
        notes.append(f"{_counted(read)} files" + (f"; left out: {_counted(left)} (data.suffixes)" if left else ""))
    text = "".join(read_source(validate(TextData, {**chosen, "data_dir": inner}, "--data")))
    vocabulary = 1024 if len(text) > 200_000 else 512
    context = 128 if len(text) > 20_000 else 32
    budget: Values = {
        "batch_size": 8,
        "optimizer": "muon",
        "learning_rate": 2.0e-3,
        "weight_decay": 0.05,
        "warmup_examples": 400,
    }
    first, second = (6.0, 9.0) if len(text) > 500_000 else (2.0, 2.5)
    values: Values = {
        "description": f"{len(text):,} characters of {Path(place).name}",
        "modality": "text",
        "data": {**chosen, "data_dir": place, "tokenizer": {"kind": "bpe", "vocabulary": vocabulary}},
        "model": {"context": context, "transformer": {"width": 192, "depth": 4, "heads": 3}},
        "autoregressive": {"minutes": first, **budget},
        "train": {"minutes": second, **budget},
        "warm_start": True,
        "sample": {"count": 24, "steps": 32, "temperature": 0.9, "guided_count": 2},
        "evaluate": {"spans": [8, 16, 32] if context == 128 else [], "span_count": 12, "bound_windows": 32},
        "gate": {"metric": "bits_per_character_4", "better": "lower"},
    }
    notes += [
        f"{len(text):,} characters of text",
        f"{first + second:g} minutes of training; with samples and measures about {2 * (first + second):.0f} in all",
    ]
    return values, notes


def _kinds_of_text(folder: str, files: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """How many files have each suffix: of those to read, and of the others. Read are the suffixes of prose; where
    there are none, all whose first file is text."""
    counts = Counter(Path(name).suffix.lower() for name in files)
    read = [suffix for suffix in PROSE if counts[suffix]]
    if not read:
        first = {Path(name).suffix.lower(): name for name in reversed(files)}
        read = [suffix for suffix in sorted(counts) if re.fullmatch(r"\.\w{1,19}", suffix)]
        read = [suffix for suffix in read if _is_text(inside(folder, first[suffix], links=True))][:50]
    return {suffix: counts.pop(suffix) for suffix in read}, dict(counts)


def _is_text(path: str) -> bool:
    with storage.open_read(path) as stream:
        start = stream.read(4096)
    try:
        return "\0" not in Decoding()(start)
    except NotUTF8Error:
        return False


def _counted(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in kinds.items())
