"""How much of texts is copied from another text, which may be longer than memory: one pass over it, a block at a time.

Pieces of one length are compared by a hash that rolls over all characters of a block at once, and by themselves where
hashes agree. A longer piece than the longest so far is looked for, so each one that is found is news.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from core.text.long_text import BLOCK, LongText

BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64
TABLE_BITS = 22
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Copies:
    """Of several texts: characters of the longest piece that the source has, and texts with a piece above a length."""

    longest: int
    many: int


def copies(texts: Sequence[str], source: str | LongText, above: int = 50) -> Copies:
    """The longest piece of `texts` that occurs in `source`, and how many of them have one longer than `above`."""
    rolled = [_Rolled(text) for text in texts]
    longest, copied = 0, set[int]()
    overlap = max(map(len, texts), default=0)
    for start in range(0, len(source), BLOCK):
        block = _Rolled(str(source[start : start + BLOCK + overlap]))
        while longest < overlap and (met := _met(rolled, block, longest + 1)):
            longest = max(_length(rolled[index].text, place, block.text, at) for index, place, at in met)
        left = [index for index in range(len(texts)) if index not in copied]
        copied |= {left[index] for index, _, _ in _met([rolled[index] for index in left], block, above + 1)}
    return Copies(longest, len(copied))


def _length(text: str, place: int, source: str, at: int) -> int:
    """How many characters of `text` from `place` on are those of `source` from `at` on."""
    length = 0
    for one, other in zip(text[place:], source[at : at + len(text) - place], strict=False):
        if one != other:
            break
        length += 1
    return length


def _met(texts: Sequence[_Rolled], block: _Rolled, length: int) -> list[tuple[int, int, int]]:
    """For each text with a piece of `length` that `block` has: its index, the place of one there, and in the block."""
    sought = [text.hashes(length) for text in texts]
    wanted = np.concatenate([*sought, np.empty(0, np.uint64)])
    if not len(wanted):
        return []
    table = np.zeros(1 << TABLE_BITS, bool)
    table[wanted >> np.uint64(64 - TABLE_BITS)] = True
    there = block.hashes(length)
    maybe = np.flatnonzero(table[there >> np.uint64(64 - TABLE_BITS)])
    values, first = np.unique(there[maybe], return_index=True)
    met = []
    for index, own in enumerate(sought):
        _, place, found = np.intersect1d(own, values, return_indices=True)
        for one, other in zip(place.tolist(), maybe[first[found]].tolist(), strict=True):
            if texts[index].text[one : one + length] == block.text[other : other + length]:
                met.append((index, one, other))
                break
    return met


class _Rolled:
    """A text whose pieces of any length have a hash: sum of mixed characters c_j B^j, modulo 2^64."""

    def __init__(self, text: str) -> None:
        self.text = text
        mixed = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
        mixed = (mixed + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(31)
        powers, self._inverse = _powers(len(text), BASE), _powers(len(text), pow(BASE, -1, 1 << 64))
        self._sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed * powers, dtype=np.uint64)])

    def hashes(self, length: int) -> Hashes:
        """Of each piece of `length`, in order: uint64 [len(text) - length + 1]."""
        if length > len(self.text):
            return np.empty(0, np.uint64)
        pieces = (self._sums[length:] - self._sums[:-length]) * self._inverse[: len(self.text) - length + 1]
        return pieces ^ (pieces >> np.uint64(32)) * np.uint64(0x94D049BB133111EB)  # the high bits know the low ones


def _powers(count: int, base: int) -> Hashes:
    """base^0 .. base^(count - 1), modulo 2^64."""
    return _of_two(count.bit_length(), base)[:count]


@lru_cache(8)
def _of_two(bits: int, base: int) -> Hashes:
    return np.cumprod(np.concatenate([np.ones(1, np.uint64), np.full((1 << bits) - 1, base, np.uint64)]))
