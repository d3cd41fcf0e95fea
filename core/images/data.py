"""The data set artifact: prepared once from any source, then opened memory-mapped by training and evaluation.

    dataset.json             counts, shape, value range, class names and histogram, hashes of content and split, and
                             `summary`: what was read, what was skipped and why (core/sources/summary.py)
    {split}_images.npy       uint8 [N, H, W] or [N, H, W, 3], for the splits train, validation and test
    {split}_labels.npy       int64 [N]
    contact_sheet.png        some training images of each class

Of more than `data.shards.above_gb`, in place of the images:

    shards.json, shards/     core/images/shards.py; or the shards are elsewhere
    examples_images.npy      the first training images of each class, and their labels: examples_labels.npy

A million images stream through one batch at a time: one pass over the source, memory independent of their number.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import storage
from core.config import canonical_json, config_hash
from core.errors import UserError
from core.images import by_shard
from core.images.config import ImageData
from core.images.conform import conform
from core.images.contact_sheet import contact_sheet
from core.images.dataset import FORMAT, SHARDED, SPLITS, ImageDataset, Split
from core.images.seen import Seen
from core.images.sources import Labels, Source, open_source
from core.images.sources.source import MAX_SIDE
from core.images.split import UNUSED, assign_splits, pools_of
from core.images.writing import NpyWriter, Sharding, ShardWriter, write_index, writer_of, written_files
from core.names import inside
from core.printable import say
from core.records import facts
from core.sources.described import summary_lines
from core.sources.summary import Tally
from core.storage import integrity

__all__ = ["ImageDataset", "prepare_data"]


def prepare_data(config: ImageData, out: Path, place: str | None = None) -> dict[str, Any]:
    """Writes the data set artifact to the folder `out`, whole or not at all; returns its flat metadata.

    Shards are put below `place`, unless `config` says where; None: in `out`.

    Raises:
        UserError: the source is missing or damaged, or its images cannot be used together.
    """
    with open_source(config) as source:
        return prepare(source, config, out, config.source, place)


def prepare(source: Source, config: ImageData, out: Path, name: str, place: str | None = None) -> dict[str, Any]:
    """The same for a source that is open already; `name` says in the metadata what it is.

    Raises:
        UserError: its images cannot be used together, or are too few.
    """
    with storage.atomic_folder(out, "dataset.json") as folder:
        assignment = assign_splits(source, config)
        sharding = _sharding(source, config, assignment, place)
        written = _write_images(source, config, assignment, folder, sharding)
        source.intake.check(source.train.name)
        _check_overlap(written, config.overlap, source.train.name)
        metadata = {"source": name, **_describe(source, config, assignment, written)}
        if sharding is not None:
            metadata["shards"] = {"root": sharding.root}
        shown = "train" if sharding is None else "examples"
        images = np.load(inside(folder, f"{shown}_images.npy"), mmap_mode="r")
        labels = np.load(inside(folder, f"{shown}_labels.npy"))
        sheet = contact_sheet(images, labels, source.class_names, counts=metadata["class_histogram"]["train"])
        sheet.save(folder / "contact_sheet.png", optimize=True)
        integrity.write_json(folder / "dataset.json", metadata)
    for line in summary_lines(metadata):
        say(line, to=sys.stderr)
    return flat_metadata(metadata)


def flat_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What an artifact store keeps of a `dataset.json`: numbers and short texts only."""
    return {
        "modality": "images",
        "source": metadata["source"],
        **{f"{split}_count": metadata["counts"][split] for split in SPLITS},
        "shape": "x".join(str(size) for size in metadata["shape"]),
        "classes": len(metadata["class_names"]),
        "content_sha256": metadata["content_sha256"],
        "split_sha256": metadata["split_sha256"],
    }


def _check_overlap(written: _Written, most: float, where: str) -> None:
    """Raises UserError if of a held-out split a share above `most` equals training images."""
    for split, leaked in written.leaked.items():
        held = len(written.labels[split])
        if leaked > most * held:
            raise UserError(
                f"{where}: {leaked:,} of {held:,} {split} images equal one of training, so a model that copies would"
                f" look good; at most {100 * most:g} % may (data.overlap): remove copies from the data, or set"
                " data.overlap: 1 to take them as they are"
            )


@dataclass
class _Written:
    files: dict[str, dict[str, Any]]
    shape: tuple[int, ...]
    pixels: NDArray[np.int64]  # how often each value 0..255 occurs in the training images
    labels: dict[Split, Labels]
    leaked: dict[Split, int]  # held-out images that equal one of training


def _sharding(
    source: Source, config: ImageData, assignment: Mapping[Split, NDArray[np.uint8]], place: str | None
) -> Sharding | None:
    """How the images are written in shards; None if they are not, by their number and by the shape of the first."""
    count = sum(int((codes != UNUSED).sum()) for codes in assignment.values())
    most = (config.resolution or MAX_SIDE, config.resolution or MAX_SIDE, 3)
    if Sharding.of(config.shards, count, most, place) is None:
        return None  # whatever their shape, which need not be read
    with source.intake.looking():
        first = next(iter(source.train.batches()))[:1]
    return Sharding.of(config.shards, count, conform(first, config, Tally()).shape[1:], place)


def _write_images(
    source: Source,
    config: ImageData,
    assignment: Mapping[Split, NDArray[np.uint8]],
    folder: Path,
    sharding: Sharding | None,
) -> _Written:
    if sharding is not None and by_shard.can_be_read(source):
        shards, labels, seen = by_shard.write(source, config, assignment, sharding, folder)
        files = write_index(shards, sharding, folder)
    else:
        writers, labels, seen = _write_in_turn(source, config, assignment, folder, sharding)
        files = written_files(writers, sharding, folder)
    arrays: dict[str, NDArray[Any]] = {f"{split}_labels.npy": values for split, values in labels.items()}
    if sharding is not None:
        arrays |= dict(zip(("examples_images.npy", "examples_labels.npy"), seen.examples(), strict=True))
    for name, values in arrays.items():
        path = inside(folder, name)
        np.save(path, values, allow_pickle=False)
        files[name] = {"sha256": storage.sha256(path), "bytes": path.stat().st_size}
    assert seen.shape is not None
    return _Written(files, seen.shape, seen.pixels, labels, seen.leaked(source.intake.tally))


def _write_in_turn(
    source: Source,
    config: ImageData,
    assignment: Mapping[Split, NDArray[np.uint8]],
    folder: Path,
    sharding: Sharding | None,
) -> tuple[list[NpyWriter | ShardWriter], dict[Split, Labels], Seen]:
    """Writes the images in the order in which they come, in this process."""
    pools = pools_of(source, config, assignment, shuffled=sharding is not None)
    labels = {
        split: np.concatenate([pool.labels[codes == index] for pool, codes in pools])
        for index, split in enumerate(SPLITS)
    }
    tally, seen = source.intake.tally, Seen(len(source.class_names), examples=sharding is not None)
    with ExitStack() as stack:
        writers = [writer_of(sharding, folder, split, len(labels[split])) for split in SPLITS]
        for writer in writers:
            stack.callback(writer.close)
        for pool, codes in pools:
            done = 0
            for native in pool.batches():
                batch = conform(native, config, tally)
                if seen.shape is not None and batch.shape[1:] != seen.shape:
                    size, expected = _size(batch.shape[1:]), _size(seen.shape)
                    raise UserError(f"{pool.name}: images of {size}, while {source.train.name} has {expected}")
                classes, part = pool.labels[done:][: len(batch)], codes[done:][: len(batch)]
                done += len(batch)
                for index, writer in enumerate(writers):
                    if (part == index).any():
                        writer.append(batch[part == index])
                seen.add(batch, part, classes)
                tally.count("read", len(batch))
    assert all(writer.written == writer.count for writer in writers), "a reader's batches differ from its labels"
    return writers, labels, seen


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} pixels" + (" in colour" if len(shape) == 3 else "")


def _describe(
    source: Source, config: ImageData, assignment: Mapping[Split, NDArray[np.uint8]], written: _Written
) -> dict[str, Any]:
    split_digest = hashlib.sha256()
    for split, codes in assignment.items():
        split_digest.update(f"{split} {len(codes)}\n".encode() + codes.tobytes())
    values = np.flatnonzero(written.pixels)
    levels = np.arange(256) / 127.5 - 1  # in the units of the network, [-1, 1]
    share = written.pixels / written.pixels.sum()
    mean = float(share @ levels)
    identity = {name: file["sha256"] for name, file in written.files.items()}
    return {
        "format": FORMAT if f"{SPLITS[0]}_images.npy" in written.files else SHARDED,
        "modality": "images",
        "counts": {split: len(written.labels[split]) for split in SPLITS},
        "shape": list(written.shape),
        "value_range": [int(values[0]), int(values[-1])],
        "mean": round(mean, 6),
        "std": round(float(np.sqrt(share @ (levels - mean) ** 2)), 6),
        "class_names": list(source.class_names),
        "labelled": source.labelled,
        "class_histogram": {
            split: np.bincount(written.labels[split], minlength=len(source.class_names)).tolist() for split in SPLITS
        },
        "content_sha256": hashlib.sha256(canonical_json([identity, list(source.class_names)]).encode()).hexdigest(),
        "split_sha256": split_digest.hexdigest(),
        "split_seed": config.split_seed,
        "config_hash": config_hash(config.model_dump(mode="json", exclude={"shards": {"engine", "workers"}})),
        "summary": facts(source.intake.tally.summary()),
        "files": written.files,
    }
