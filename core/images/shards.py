"""Images in shards: files of many images each, read where an array of them is indexed, perhaps from far away.

    shards.json             how many images each shard of each split has, and its SHA-256
    <root>/<SHA-256>.npy    uint8 [N, H, W] or [N, H, W, 3]; root: the folder `shards` of the data set, or another place

Shards of remote storage go through a cache on this machine's disk (core/storage/cache.py), and all do where
TEXTDIFFUSION_CACHE_GB is set, as for a disk on the network. A shard is verified when it
is first read, so opening a data set takes no longer the larger it is.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import Field

from core import storage
from core.errors import UserError
from core.names import inside
from core.records import Record
from core.storage.cache import SIZE, FileCache
from core.storage.drives import is_mounted_bucket

if TYPE_CHECKING:
    from core.randomness import DataOrder

INDEX, FOLDER = "shards.json", "shards"
WINDOW = 4  # shards whose images a training sees in one mixture
CACHED = 2 * WINDOW + 1  # shards: of a training's window and of the next, and one on its way


class Shard(Record):
    """One file of images."""

    images: Annotated[int, Field(ge=1)]
    bytes: Annotated[int, Field(ge=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @property
    def name(self) -> str:
        return f"{self.sha256}.npy"


class ShardIndex(Record):
    """The shards of each split in order; all but the last of a split have `rows` images."""

    rows: Annotated[int, Field(ge=1)]
    splits: dict[str, tuple[Shard, ...]]


class Shards:
    """The images of a split, uint8 [N, H, W] or [N, H, W, 3], indexed as an array is: what is asked for is read.

    Args:
        root: folder or prefix of the files.
        shards: of the split, in order.
        rows: images in each but the last.
        shape: of one image.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, root: str, shards: Sequence[Shard], rows: int, shape: tuple[int, ...]) -> None:
        self._root, self._shards, self._rows = root, list(shards), rows
        self.shape = (sum(shard.images for shard in shards), *shape)
        far = storage.is_remote(root) or is_mounted_bucket(Path(root)) or SIZE in os.environ
        largest = max((shard.bytes for shard in shards), default=0)
        self._cache = FileCache.own(FOLDER, min(CACHED, len(shards)) * largest) if far else None
        self._open: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._verified: set[int] = set()
        self._fetching: list[threading.Thread] = []

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        """Copies of images: one, a slice of them, those at integers [B], or where booleans [N] are true.

        Raises:
            IndexError: there is no such image.
            UserError: a shard is missing, or not what was written.
        """
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        wanted = np.asarray(index)
        if wanted.dtype == bool and wanted.shape == (len(self),):
            wanted = np.flatnonzero(wanted)
        if wanted.size and not np.issubdtype(wanted.dtype, np.integer):
            raise IndexError(f"images are indexed by integers, slices and booleans, not by {wanted.dtype}")
        flat = wanted.reshape(-1).astype(np.int64)
        flat = np.where(flat < 0, flat + len(self), flat)
        if flat.size and not 0 <= flat.min() <= flat.max() < len(self):
            raise IndexError(f"image {wanted.min()} or {wanted.max()} of {len(self)}")
        images = np.empty((len(flat), *self.shape[1:]), np.uint8)
        shards = flat // self._rows
        for shard in np.unique(shards):  # each is read once
            chosen = shards == shard
            images[chosen] = self._images(int(shard))[flat[chosen] - shard * self._rows]
        return images.reshape(*wanted.shape, *self.shape[1:])

    def order(self, seed: int) -> DataOrder:
        """In which a training sees them, near their shards, which are fetched before they are needed."""
        from core.randomness import DataOrder

        return DataOrder(len(self), seed, self._rows, WINDOW, self._prefetch if self._cache else None)

    def _images(self, shard: int) -> NDArray[np.uint8]:
        if shard not in self._open:
            with self._stream(shard) as stream:
                self._open[shard] = self._mapped(shard, stream)
            while len(self._open) > WINDOW:
                self._open.popitem(last=False)
        self._open.move_to_end(shard)
        return self._open[shard]

    def _stream(self, shard: int) -> IO[bytes]:
        entry = self._shards[shard]
        uri = inside(self._root, entry.name)
        if self._cache is not None:
            return self._cache.open(uri, entry.sha256, entry.bytes)
        if shard not in self._verified and storage.sha256(uri) != entry.sha256:
            raise UserError(f"{uri}: its SHA-256 is not the one in {INDEX}; run prepare-data again")
        self._verified.add(shard)
        return storage.open_read(uri)

    def _mapped(self, shard: int, stream: IO[bytes]) -> NDArray[np.uint8]:
        expected = (self._shards[shard].images, *self.shape[1:])
        npy.read_magic(stream)
        found, fortran, dtype = npy.read_array_header_1_0(stream)
        if (found, fortran, dtype) != (expected, False, self.dtype):
            raise UserError(f"{self._root}/{self._shards[shard].name}: holds {dtype} {found}, {INDEX} says {expected}")
        return np.memmap(stream, self.dtype, "r", stream.tell(), expected)

    def _prefetch(self, shards: list[int]) -> None:
        """Fetches shards into the cache, several at a time, while others are read."""
        cache, before = self._cache, self._fetching
        assert cache is not None

        def fetch() -> None:
            for thread in before:
                thread.join()
            for entry in (self._shards[shard] for shard in shards):
                with suppress(UserError, OSError):  # who reads the shard tries again, and says so
                    cache.fetch(inside(self._root, entry.name), entry.sha256, entry.bytes, wait=False)

        self._fetching = [threading.Thread(target=fetch, daemon=True) for _ in range(WINDOW)]
        for thread in self._fetching:
            thread.start()


Images = NDArray[np.uint8] | Shards
"""Images of a split: mapped into memory, or in shards."""


def order_of(images: Images, seed: int) -> DataOrder:
    """In which a training sees `images`."""
    from core.randomness import DataOrder

    return images.order(seed) if isinstance(images, Shards) else DataOrder(len(images), seed)
