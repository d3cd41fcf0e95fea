"""A training's reading of images that are larger than the disk it may use: speed, memory and disk, measured.

    python -m benchmarks.shards --place gs://BUCKET/PREFIX --gb 4 --cache_gb 1 --mb 64

Images of noise are prepared into shards at `place`, then all of them are read once in the order of a training, through
a cache of `cache_gb`; a folder in place of the prefix is for a disk on the network. One line of JSON for each of the
two: seconds, CPU seconds, the most memory that was this process's own (without pages of files, which the system takes
back), and the most bytes on this machine's disk.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from core.images.config import ImageData
from core.images.data import prepare
from core.images.dataset import ImageDataset
from core.images.shards import order_of
from core.images.sources.intake import Intake
from core.images.sources.source import Batch, Pool, Source, rows_per_batch
from core.printable import say
from core.storage.cache import FOLDER, SIZE

SHAPE = (64, 64, 3)
BATCH = 256


def noise(count: int) -> Source:
    """`count` images of noise, made as they are read, in ten classes."""

    def batches() -> Iterator[Batch]:
        rows, random = rows_per_batch(SHAPE), np.random.default_rng(0)
        for start in range(0, count, rows):
            yield random.integers(0, 256, (min(rows, count - start), *SHAPE), np.uint8)

    names = tuple(str(name) for name in range(10))
    return Source(Pool("noise", np.arange(count) % 10, batches), names, Intake(ImageData()))


def watched(work: Callable[[], int], place: Path) -> dict[str, Any]:
    """What `work`, which gives a number of images, takes; `place` is the disk that is watched."""
    most, stop = [0, 0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            most[0] = max(most[0], _own_memory())
            most[1] = max(most[1], _bytes_below(place))

    watcher = threading.Thread(target=watch)
    before, began = time.process_time(), time.monotonic()
    watcher.start()
    try:
        images = work()
    finally:
        stop.set()
        watcher.join()
    seconds, cpu = time.monotonic() - began, time.process_time() - before
    size = images * int(np.prod(SHAPE))
    return {
        "images": images,
        "gb": round(size / 1e9, 2),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "cpu_ns_a_byte": round(1e9 * cpu / size, 2),
        "memory_gb": round(most[0] / 1e9, 2),
        "disk_gb": round(most[1] / 1e9, 2),
    }


def _own_memory() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").split("\n")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def _bytes_below(place: Path) -> int:
    total = 0
    for folder, _, names in os.walk(place):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", required=True, help="folder, gs:// or s3:// prefix of the shards")
    parser.add_argument("--gb", type=float, default=4.0, help="of images")
    parser.add_argument("--cache_gb", type=float, default=1.0, help="of the cache on this disk")
    parser.add_argument("--mb", type=float, default=64.0, help="of a shard")
    chosen = parser.parse_args()
    # Shards of the next window are still on their way at the end.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        root = Path(scratch)
        os.environ |= {FOLDER: str(root / "cache"), SIZE: str(chosen.cache_gb), "TMPDIR": scratch}
        tempfile.tempdir = scratch
        count = int(chosen.gb * 1e9) // int(np.prod(SHAPE))
        config = ImageData.model_validate({"shards": {"above_gb": 0, "mb": chosen.mb, "place": chosen.place}})

        def write() -> int:
            prepare(noise(count), config, root / "dataset", "noise")
            return count

        def read() -> int:
            images = ImageDataset.open(root / "dataset").images("train")
            order = order_of(images, 0)
            for start in range(0, len(images), BATCH):
                images[order(start, min(start + BATCH, len(images))).numpy()]
            return len(images)

        say(json.dumps({"prepare": watched(write, root)}))
        say(json.dumps({"epoch": watched(read, root)}))


if __name__ == "__main__":
    main()
