"""Random numbers as pure functions of a seed and a place: of training, and of samples that share a batch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from core import philox
from core.philox import mixed
from core.transfer import to_device


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from any parts; unlike sums of seeds, different parts never collide by design."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_of(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded from `parts`. CPU, so that every device sees the same numbers."""
    return torch.Generator().manual_seed(seed_of(*parts))


class Noise:
    """Random numbers for the rows of a batch, each row's a function of its own key and of how often it was asked.

    So a row meets the same numbers whatever shares its batch, in whichever process, and on every device: uniforms to
    the bit, normals to rounding.
    """

    def __init__(self, keys: Sequence[int] | Tensor, device: torch.device | str = "cpu") -> None:
        """Of one key a row, int64 [R]."""
        self._keys = torch.as_tensor(keys, dtype=torch.int64)
        self.device, self._asked = torch.device(device), 0

    @classmethod
    def of(cls, *parts: int | str, rows: int | Sequence[int], device: torch.device | str = "cpu") -> Noise:
        """Of rows that are numbered, with a key of `parts` and its number each."""
        return cls([seed_of(*parts, row) for row in (range(rows) if isinstance(rows, int) else rows)], device)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, rows: slice) -> Noise:
        """That of some rows, which goes on by itself."""
        some = Noise(self._keys[rows], self.device)
        some._asked = self._asked
        return some

    def repeated(self, count: int) -> Noise:
        """`count` rows for each row, side by side, with numbers of their own."""
        keys = mixed(self._keys)[:, None] + torch.arange(1, count + 1)
        return Noise(mixed(keys).flatten(), self.device)

    def normal(self, *shape: int) -> Tensor:
        """The next standard normals: float32 [R, *shape] on the device."""
        return normal(self.keys(1)[0], *shape)

    def uniform(self, *shape: int) -> Tensor:
        """The next uniforms in [0, 1): float32 [R, *shape] on the device."""
        return uniform(self.keys(1)[0], *shape)

    def keys(self, times: int) -> Tensor:
        """What the next numbers are functions of, those of `times` calls: int64 [times, R, 2] on the device."""
        asked = [seed_of("asked", self._asked + 1 + turn) for turn in range(times)]
        self._asked += times
        return to_device(philox.rows(mixed(self._keys + torch.tensor(asked, dtype=torch.int64)[:, None])), self.device)


def normal(keys: Tensor, *shape: int) -> Tensor:
    """The standard normals of one of `Noise.keys` [R, 2]: float32 [R, *shape]."""
    return philox.normal(keys, math.prod(shape)).view(len(keys), *shape)


def uniform(keys: Tensor, *shape: int) -> Tensor:
    """The uniforms in [0, 1) of one of `Noise.keys` [R, 2]: float32 [R, *shape]."""
    return philox.uniform(keys, math.prod(shape)).view(len(keys), *shape)


class Draws:
    """Random numbers for the slice [start, stop) of a global batch of `total` examples.

    The same example meets the same numbers however the batch is spread over processes and micro-batches. The few that
    decide about noise are drawn for the global batch and then cut, on the host. Noise is drawn on the device, example
    by example.
    """

    def __init__(self, seed: int, examples_seen: int, start: int, stop: int, total: int, device: torch.device) -> None:
        self.generator = generator_of(seed, "batch", examples_seen)
        self._start, self._stop, self._total, self.device = start, stop, total, device
        first = seed_of(seed, "noise") + examples_seen + start - 2**63  # an int64, and so are those that follow
        self._noise = Noise(mixed(first + torch.arange(stop - start)), device)

    @classmethod
    def fresh(cls, total: int, device: torch.device) -> Draws:
        """Numbers for a batch of its own, seeded by torch's global generator, which `torch.manual_seed` sets."""
        return cls(int(torch.randint(2**62, ())), 0, 0, total, total, device)

    def _cut(self, numbers: Tensor) -> Tensor:
        return numbers[self._start : self._stop]

    def normal(self, *shape: int) -> Tensor:
        """Standard normals on the device, [stop - start, *shape]."""
        return self._noise.normal(*shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniforms in [0, 1), [stop - start, *shape]."""
        return self._cut(torch.rand(self._total, *shape, generator=self.generator))

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers in [0, high), [stop - start, *shape]."""
        return self._cut(torch.randint(high, (self._total, *shape), generator=self.generator))

    def stratified(self) -> Tensor:
        """One uniform in [0, 1) for each example, one from each of `total` equal strata: [stop - start].

        Each is uniform by itself, together they cover the interval evenly: less variance at no cost.
        """
        strata = torch.randperm(self._total, generator=self.generator)
        return self._cut((strata + torch.rand(self._total, generator=self.generator)) / self._total)


class DataOrder:
    """The example at each position of the endless training stream: a new permutation every epoch.

    Up to `LARGE` examples it is in memory; of more, each index is calculated from its position.

    Args:
        size: examples of the data set.
        seed: of the order.
        near: examples that are stored together, in one shard. An epoch then goes through the shards in a new order,
            `window` of them at a time, whose examples are shuffled.
        window: shards.
        coming: told at the beginning of each window which shards it has, and which the next one.
    """

    LARGE = 1 << 26

    def __init__(
        self,
        size: int,
        seed: int,
        near: int | None = None,
        window: int = 1,
        coming: Callable[[list[int]], None] | None = None,
    ) -> None:
        if size < 1:
            raise ValueError("the data set is empty")
        self._size, self._seed = size, seed
        self._near, self._window, self._coming = near, window, coming
        self._place, self._order = (-1, 0), torch.empty(0, dtype=torch.int64)  # epoch and window that are in memory
        self._shards, self._ends = list[int](), torch.empty(0, dtype=torch.int64)  # of that epoch

    def __call__(self, start: int, stop: int) -> Tensor:
        """Indices into the data set for positions [start, stop) of the stream: int64 [stop - start]."""
        parts = []
        while start < stop:
            epoch, offset = divmod(start, self._size)
            count = min(stop - start, self._size - offset)
            if self._near is not None:
                parts.append(self._in_window(epoch, offset, count))
            elif self._size > self.LARGE:
                generator = generator_of(self._seed, "epoch", epoch)
                parts.append(shuffled(torch.arange(offset, offset + count), self._size, generator))
            else:
                if self._place != (epoch, 0):
                    generator = generator_of(self._seed, "epoch", epoch)
                    self._place, self._order = (epoch, 0), torch.randperm(self._size, generator=generator)
                parts.append(self._order[offset : offset + count])
            start += len(parts[-1])
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)

    def _in_window(self, epoch: int, offset: int, count: int) -> Tensor:
        """Up to `count` indices from `offset` of an epoch on, as far as the window goes that it is in."""
        if self._place[0] != epoch:
            self._shards = self._shuffled_shards(epoch)
            lengths = torch.tensor([len(self._examples(shard)) for shard in self._shards])
            self._ends = lengths.cumsum(0)[self._window - 1 :: self._window].contiguous()  # of full windows
        window = int(torch.searchsorted(self._ends, offset, right=True))
        if self._place != (epoch, window):
            begin = window * self._window
            members, later = self._shards[begin:][: self._window], self._shards[begin + self._window :]
            examples = torch.cat([torch.arange(each.start, each.stop) for each in map(self._examples, members)])
            order = torch.randperm(len(examples), generator=generator_of(self._seed, "window", epoch, window))
            self._place, self._order = (epoch, window), examples[order]
            if self._coming is not None:
                self._coming([*members, *(later or self._shuffled_shards(epoch + 1))[: self._window]])
        return self._order[offset - (int(self._ends[window - 1]) if window else 0) :][:count]

    def _shuffled_shards(self, epoch: int) -> list[int]:
        count = -(-self._size // (self._near or 1))
        return torch.randperm(count, generator=generator_of(self._seed, "shards", epoch)).tolist()

    def _examples(self, shard: int) -> range:
        near = self._near or 1
        return range(shard * near, min((shard + 1) * near, self._size))


def shuffled(positions: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Where a permutation of 0 .. size - 1 has each of `positions` [B]: int64 [B].

    A Feistel network over the next power of four, walked until it ends below `size` (Black & Rogaway 2002, "Ciphers
    with arbitrary finite domains"): no more memory than the positions themselves.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = torch.randint(2**62, (6,), generator=generator).tolist()
    places, walking = positions.clone(), torch.ones_like(positions, dtype=torch.bool)
    while bool(walking.any()):
        left, right = places >> half, places & ((1 << half) - 1)
        for key in keys:
            left, right = right, left ^ (mixed(right + key) & ((1 << half) - 1))
        places = torch.where(walking, (left << half) | right, places)
        walking = places >= size
    return places
