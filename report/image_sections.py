"""Sections of an image run that show images: the samples, the denoising path, the data."""

from __future__ import annotations

import numpy as np

from report.artifacts import Artifacts, Json, number, numbers
from report.classes import class_names, shares
from report.pictures import TILE_PIXELS, as_pixels, columns_for, png, png_file, sheet, within
from report.sections import Section, absent, mapping
from report.words import count, figure

GRID_BYTES, PATH_BYTES = 700_000, 1_500_000
PER_CLASS, UNCONDITIONAL, PATH_TILES, PATH_FRAMES = 24, 96, 40, 48


def samples(artifacts: Artifacts) -> Section:
    """Samples as rows of one class each; unconditional ones as one block."""
    arrays = artifacts.samples.arrays("samples.npz")
    images = as_pixels(arrays["images"]) if "images" in arrays else None
    if images is None:
        return absent("samples", "Samples", "This run made no samples.")
    labels = arrays.get("labels")
    if labels is None or labels.shape != (len(images),):
        labels = np.full(len(images), -1)
    present = [int(label) for label in np.unique(labels)]
    names = class_names(artifacts, max(present) + 1)
    tile = min(TILE_PIXELS, max(images.shape[1:3])) ** 2 * (3 if images.ndim == 4 else 1)
    wanted = UNCONDITIONAL if present == [-1] else PER_CLASS
    each = within(wanted, tile * min(len(present), 40), GRID_BYTES)
    rows = []
    for label in present[:40]:
        chosen = images[labels == label][:each]
        rows.append(
            {
                "name": "no class" if label < 0 else names[label],
                "tiles": [png(image, TILE_PIXELS) for image in chosen],
                "total": count(int((labels == label).sum())),
            }
        )
    lead = f"{count(len(images))} samples, {images.shape[2]} × {images.shape[1]} pixels. Drawn in order, none picked."
    if len(present) > 40:
        lead += f" The first 40 of {len(present)} classes are shown."
    conditional = present != [-1]
    views = [("Samples", rows)]
    most = max(len(row["tiles"]) for row in rows)
    if real := real_rows(artifacts, present if conditional else [], most):
        views.append(("Real", real))
    shown = {"views": views, "conditional": conditional, "most": most}
    return Section("samples", "Samples", "samples_images.html", shown, lead=lead)


def path(artifacts: Artifacts, *, tiles: int = PATH_TILES, frames: int = PATH_FRAMES) -> Json | None:
    """The denoising path as one sheet of tiles per noise level, first pure noise, last the samples."""
    arrays = artifacts.samples.arrays("trajectory.npz")
    if "images" not in arrays or arrays["images"].ndim not in (4, 5):
        return None
    stack = arrays["images"]
    kept = [frame for frame in map(as_pixels, stack) if frame is not None]
    if len(kept) < 2 or len(kept) != len(stack):
        return None
    sigmas: list[float | None] = [number(value) for value in arrays.get("sigmas", np.zeros(0)).tolist()]
    sigmas += [None] * (len(kept) - len(sigmas))
    steps = steps_of(len(kept), artifacts.sampling.steps)
    if len(kept) > frames:
        index = np.unique(np.linspace(0, len(kept) - 1, frames).round().astype(int))
        kept, sigmas, steps = [kept[i] for i in index], [sigmas[i] for i in index], [steps[i] for i in index]
    tiles = within(min(tiles, len(kept[0])), kept[0][0].size * len(kept), PATH_BYTES)
    height, width = kept[0].shape[1:3]
    columns = columns_for(tiles, height, width, aspect=1.15)
    tiles = tiles - tiles % columns if tiles > columns else tiles
    sheets = [sheet(frame[:tiles], columns, gap=max(1, height // 14)) for frame in kept]
    longest = 1200 if height * width * tiles > 1_000_000 else None
    return {
        "frames": [png(one, longest) for one in sheets],
        "sigmas": sigmas,
        "steps": steps,
        "labels": [_sigma(value) for value in sigmas],
        "width": sheets[0].shape[1],
        "height": sheets[0].shape[0],
        "tiles": tiles,
    }


def steps_of(frames: int, steps: int | None) -> list[int]:
    """Which of the sampler's steps each frame of a path came after: 0 is noise, the last is the sample."""
    return [round(index * (steps or frames - 1) / (frames - 1)) for index in range(frames)]


def _sigma(value: float | None) -> str:
    return "" if value is None else figure(value)


def data(artifacts: Artifacts) -> Section:
    """What the model was trained on: counts, shape, and a contact sheet."""
    facts = artifacts.data_facts
    if not facts:
        return absent("data", "Data", "The data set's description was not given.")
    rows = [(f"{name} images", count(value)) for name, value in mapping(facts.get("counts")).items()]
    shape = facts.get("shape")
    if isinstance(shape, list):
        rows.append(("shape", " × ".join(str(side) for side in shape)))
    for key in ("source", "value_range", "split_seed", "content_sha256"):
        if facts.get(key) is not None:
            value = facts[key]
            rows.append(
                (key.replace("_", " "), " to ".join(map(str, value)) if isinstance(value, list) else str(value))
            )
    picture: Json | None = None
    contact = artifacts.dataset.file("contact_sheet.png")
    if contact is not None:
        try:
            source, width, height = png_file(contact, 800)
            picture = {"src": source, "width": width, "height": height}
        except Exception as error:  # an unreadable picture is only left out
            artifacts.faults.append(f"contact_sheet.png could not be read ({type(error).__name__}).")
    # The classes section shows real and generated shares together.
    shown = artifacts.measured.class_histogram is not None
    portions = [] if shown else shares(numbers(mapping(facts.get("class_histogram")).get("train")))
    names = class_names(artifacts, len(portions))
    top = max(portions, default=1.0)
    balance = [
        {"name": names[i], "share": 100 * value / top, "text": figure(value, percent=True), "mark": None}
        for i, value in enumerate(portions)
    ]
    data = {"rows": rows, "picture": picture, "balance": balance}
    return Section("data", "Data", "data.html", data)


def real_rows(artifacts: Artifacts, classes: list[int], most: int) -> list[Json]:
    """Training images of `classes`, at most `most` of each, in the layout of the sample grid, so that the eye can
    compare them; of no classes: one row of images of all."""
    dataset, parts = artifacts.dataset, ("images", "labels")
    paths = [path for name in parts if (path := dataset.file(f"train_{name}.npy"))]
    if len(paths) != 2:  # images in shards
        paths = [path for name in parts if (path := dataset.file(f"examples_{name}.npy"))]
    if len(paths) != 2:
        return []
    try:
        images, labels = (np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
    except (OSError, ValueError) as error:
        artifacts.faults.append(f"The training images could not be read ({type(error).__name__}).")
        return []
    if images.ndim not in (3, 4) or len(images) != len(labels):
        return []
    present = classes[:40] or [-1]
    names = class_names(artifacts, max(present) + 1)
    tile = min(TILE_PIXELS, max(images.shape[1:3])) ** 2 * (3 if images.ndim == 4 else 1)
    each = within(most, tile * len(present), GRID_BYTES // 2)
    rows = []
    for label in present:
        members = np.flatnonzero(labels == label) if label >= 0 else np.arange(len(labels))
        chosen = as_pixels(images[members[:each]])
        if chosen is not None and len(chosen):
            name = "no class" if label < 0 else names[label]
            rows.append({"name": name, "tiles": [png(image, TILE_PIXELS) for image in chosen]})
    return rows
