"""Images that are files, written as shards by whoever is free: a process of this machine, or a machine of Apache Beam.

A shard is a part of the work: its files are decoded, checked, written and hashed by one process, which answers with
what it has seen of them. The answers are taken in the order of the shards, so the data set is the same whoever did
which.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import storage
from core.errors import UserError
from core.images.config import ImageData
from core.images.conform import conform
from core.images.dataset import SPLITS, Split
from core.images.seen import Seen
from core.images.shards import FOLDER, Shard
from core.images.sources.batches import BLOCK, First, parts_of, pixels_of
from core.images.sources.intake import Intake
from core.images.sources.source import Item, Pool, Source, rows_per_batch
from core.images.split import pools_of
from core.images.writing import Sharding, ShardWriter
from core.processes import blocks
from core.storage import remote

WORK = ".work"
"""Below the root of the shards: what Beam's machines are asked and what they answered."""


def can_be_read(source: Source) -> bool:
    """Whether all images of `source` are files."""
    return all(pool is None or pool.files is not None for pool in (source.train, source.validation, source.test))


def write(
    source: Source,
    config: ImageData,
    assignment: Mapping[Split, NDArray[np.uint8]],
    sharding: Sharding,
    folder: Path,
) -> tuple[dict[Split, list[Shard]], dict[Split, NDArray[np.int64]], Seen]:
    """Writes the images of a source of files as shards; the shards and the labels of each split, and what was seen.

    Raises:
        UserError: a file cannot be read, or is not like the others; it is named.
    """
    root = sharding.root or str(folder.absolute() / FOLDER)
    pools = [(_files(pool), pool.labels, codes) for pool, codes in
             pools_of(source, config, assignment, shuffled=True)]  # fmt: skip
    if config.shards.engine == "beam":
        _require_reach(pools[0][0][0])
    intake, seen = source.intake, Seen(len(source.class_names), examples=True)
    with intake.looking():
        _, first = pixels_of([Item(pools[0][0][0])], intake, None)
    shards: dict[Split, list[Shard]] = {split: [] for split in SPLITS}
    labels = {split: np.concatenate([labels[codes == code] for _, labels, codes in pools])
              for code, split in enumerate(SPLITS)}  # fmt: skip
    facts = {"config": config.model_dump(mode="json", exclude={"shards"}), "first": asdict(first), "root": root,
             "classes": len(source.class_names)}  # fmt: skip
    asked = _asked(pools, facts, sharding.rows, _stamps(source) if config.shards.engine == "beam" else None)
    for answer, arrays in _answers(asked, config, root):
        shards[SPLITS[answer["split"]]].append(Shard.model_validate(answer["shard"]))
        intake.add(answer["noticed"])
        intake.tally.count("read", answer["shard"]["images"])
        seen.join(arrays)
    seen.shape = tuple(answer["shape"])
    if not sharding.root:
        for left in (folder / FOLDER).glob(".*.tmp"):  # by a process that was killed, and whose part was done again
            left.unlink()
    return shards, labels, seen


def _require_reach(name: str) -> None:
    """Raises UserError where Dataflow's machines would not find the file."""
    from core.processes import beam

    if beam.elsewhere() and not storage.is_remote(name):
        raise UserError("data.data_dir: Dataflow's machines read images from a prefix of a bucket, not from a folder of"
                        " this machine or an archive")  # fmt: skip


def _answers(asked: Iterator[blocks.Block], config: ImageData, root: str) -> Iterator[blocks.Block]:
    if config.shards.engine == "beam":
        from core.processes import beam

        if beam.elsewhere() and not storage.is_remote(root):
            raise UserError(f"data.shards.place: Dataflow's machines reach no {root}; set it to a prefix of a bucket")
        return beam.in_order(written, asked, storage.join(root, WORK), config.shards.workers)
    return blocks.in_order(written, asked, config.shards.workers)


def _files(pool: Pool) -> Sequence[str]:
    assert pool.files is not None
    return pool.files


def _asked(
    pools: Sequence[tuple[Sequence[str], NDArray[np.int64], NDArray[np.uint8]]],
    facts: Mapping[str, Any],
    rows: int,
    stamps: Mapping[str, str] | None,
) -> Iterator[blocks.Block]:
    """What is to be done for each shard, split after split."""
    for code in range(len(SPLITS)):
        names = [name for files, _, codes in pools for name, own in zip(files, codes, strict=True) if own == code]
        labels = np.concatenate([labels[codes == code] for _, labels, codes in pools])
        for start in range(0, len(names), rows):
            part = names[start : start + rows]
            known = {"stamps": [_stamp(name, stamps) for name in part]} if stamps is not None else {}
            packed = Item.packed([Item(name) for name in part])
            yield {**facts, "split": code, **known}, {**packed, "labels": labels[start : start + rows]}


def _stamps(source: Source) -> Mapping[str, str]:
    """What the store says of the content of each remote file, so that a changed one is known; local ones say it."""
    name = next(iter(_files(source.train)))
    if not storage.is_remote(name):
        return {}
    place = os.path.commonpath([file.partition("://")[2] for pool in (source.train, source.validation, source.test)
                                if pool is not None for file in _files(pool)])  # fmt: skip
    prefix = f"{name.partition('://')[0]}://{place}"
    return {
        f"{prefix}/{below}": str(facts.get("md5Hash") or facts.get("etag") or remote.md5(facts).hex())
        for below, facts in remote.details(prefix).items()
    }


def _stamp(name: str, stamps: Mapping[str, str]) -> str:
    if storage.is_remote(name):
        return stamps.get(name, "")
    try:
        status = os.stat(name)
    except OSError:  # who reads it says so
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def written(block: blocks.Block) -> blocks.Block:
    """Writes a shard: what it is, and what was seen and noticed of its images.

    Raises:
        UserError: a file cannot be read, or is not like the first of all; it is named.
    """
    facts, packed = block
    config = ImageData.model_validate(facts["config"])
    intake, seen = Intake(config), Seen(facts["classes"], examples=True)
    first, labels = First.parse(facts["first"]), packed["labels"]
    items = Item.unpacked(packed)
    writer, done = ShardWriter(facts["root"], len(items), len(items)), 0
    try:
        for part in parts_of(items, min(BLOCK, rows_per_batch(first.shape))):
            pixels, _ = pixels_of(part, intake, first)
            batch = conform(pixels, config, intake.tally)
            seen.add(batch, np.full(len(batch), facts["split"], np.uint8), labels[done:][: len(batch)])
            writer.append(batch)
            done += len(batch)
    finally:
        writer.close()
    known = {"split": facts["split"], "shape": list(seen.shape or ()), "noticed": intake.noticed()}
    return {**known, "shard": writer.shards[0].model_dump(mode="json")}, seen.arrays()
