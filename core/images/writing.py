"""How prepared images are written: one .npy file for a split, or shards where all are more than a disk is to hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from core import storage
from core.images.config import ShardData
from core.images.dataset import SPLITS, Split
from core.images.shards import FOLDER, INDEX, Shard, ShardIndex
from core.names import inside
from core.storage import remote, scratches
from core.storage.files import unique_beside

MOST_ROWS = 1 << 20  # images in a shard, whose order is drawn in memory


class NpyWriter:
    """A .npy file of known length written row by row; its memory is one batch, and its hash is taken on the way."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count, self.written = path, count, 0
        self._stream = path.open("wb")
        self._digest = hashlib.sha256()

    def append(self, rows: NDArray[Any]) -> None:
        if self.written == 0:
            header = {
                "descr": npy.dtype_to_descr(rows.dtype),
                "fortran_order": False,
                "shape": (self.count, *rows.shape[1:]),
            }
            npy.write_array_header_1_0(_Tee(self._stream, self._digest), header)
        _Tee(self._stream, self._digest).write(np.ascontiguousarray(rows).tobytes())
        self.written += len(rows)

    def close(self) -> None:
        self._stream.close()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


@dataclass(frozen=True)
class _Tee:
    stream: Any
    digest: Any

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return int(self.stream.write(data))


class ShardWriter:
    """`count` images as files of `rows` each below `root`, named by their content: `shards`, once all are written.

    One file at a time is on this machine's disk where `root` is remote. One that is there already, from an earlier try,
    is not written again.
    """

    _scratch: Path

    def __init__(self, root: str, count: int, rows: int) -> None:
        self.shards: list[Shard] = []
        self.count, self.written = count, 0
        self._root, self._rows = root, rows
        self._writer: NpyWriter | None = None
        self._stack = ExitStack()
        if storage.is_remote(root):
            self._scratch = self._stack.enter_context(scratches.temporary_folder("shards"))
        else:
            self._scratch = Path(root)
            self._scratch.mkdir(parents=True, exist_ok=True)

    def append(self, rows: NDArray[Any]) -> None:
        while len(rows):
            if self._writer is None:
                left = self.count - self.written
                self._writer = NpyWriter(unique_beside(self._scratch / "shard"), min(self._rows, left))
            room = self._writer.count - self._writer.written
            self._writer.append(rows[:room])
            self.written += len(rows[:room])
            rows = rows[room:]
            if self._writer.written == self._writer.count:
                self._publish(self._writer)
                self._writer = None

    def _publish(self, writer: NpyWriter) -> None:
        writer.close()
        size = writer.path.stat().st_size
        shard = Shard(images=writer.count, bytes=size, sha256=writer.sha256)
        target = inside(self._root, shard.name)
        if not storage.is_remote(target):
            writer.path.replace(target)
        elif not (storage.exists(target) and storage.size(target) == size):
            remote.upload(writer.path, target)
        writer.path.unlink(missing_ok=True)
        self.shards.append(shard)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer.path.unlink(missing_ok=True)
        self._stack.close()


@dataclass(frozen=True)
class Sharding:
    """Shards of `rows` images below `root`; empty: in the folder of the data set."""

    rows: int
    root: str = ""

    @classmethod
    def of(cls, config: ShardData, count: int, shape: Sequence[int], place: str | None) -> Sharding | None:
        """How `count` images of `shape` are written; None: as one file for each split.

        Args:
            config: says from which size on, and how large a shard is.
            count: images.
            shape: of one.
            place: where shards are put if `config` does not say; None: beside the other files.
        """
        size = int(np.prod(shape))
        if count * size <= config.above_gb * 1e9:
            return None
        root = config.place or place or ""
        if root and not storage.is_remote(root):
            root = str(Path(root).absolute())
        return cls(min(MOST_ROWS, max(1, int(config.mb * 1e6) // size)), root.rstrip("/"))


def writer_of(sharding: Sharding | None, folder: Path, split: str, count: int) -> NpyWriter | ShardWriter:
    """What writes the images of `split` of the data set that is made in `folder`."""
    if sharding is None:
        return NpyWriter(inside(folder, f"{split}_images.npy"), count)
    return ShardWriter(sharding.root or str(folder / FOLDER), count, sharding.rows)


def written_files(
    writers: Sequence[NpyWriter | ShardWriter], sharding: Sharding | None, folder: Path
) -> dict[str, dict[str, Any]]:
    """The SHA-256 and bytes of what `writers`, of each split, wrote into `folder`, by name; of shards, their index."""
    if sharding is not None:
        shards = [writer.shards for writer in writers if isinstance(writer, ShardWriter)]
        return write_index(dict(zip(SPLITS, shards, strict=True)), sharding, folder)
    whole = [writer for writer in writers if isinstance(writer, NpyWriter)]
    return {writer.path.name: {"sha256": writer.sha256, "bytes": writer.path.stat().st_size} for writer in whole}


def write_index(shards: Mapping[Split, Sequence[Shard]], sharding: Sharding, folder: Path) -> dict[str, dict[str, Any]]:
    """Writes the index of the shards of each split; its SHA-256 and bytes by its name."""
    index = ShardIndex(rows=sharding.rows, splits={split: tuple(own) for split, own in shards.items()})
    path = folder / INDEX
    storage.write_json(path, index.model_dump(mode="json"))
    return {INDEX: {"sha256": storage.sha256(path), "bytes": path.stat().st_size}}
