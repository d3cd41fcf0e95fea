"""Images by their content: which are equal, however far apart they are stored."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from core.images.shards import Images

BLOCK = 4096  # images of a memory-mapped array held at once


def hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Eight bytes of a hash of each of [N, ...]: 8 MB for a million. uint64 [N]"""
    taken = b"".join(hashlib.blake2b(image, digest_size=8).digest() for image in np.ascontiguousarray(images))
    return np.frombuffer(taken, np.uint64)


def repeats(images: Images) -> NDArray[np.bool_]:
    """True where an image of [N, ...], which may be memory-mapped or in shards, equals an earlier one. bool [N]"""
    blocks = [hashes(images[start : start + BLOCK]) for start in range(0, len(images), BLOCK)]
    _, first = np.unique(np.concatenate(blocks), return_index=True)
    repeated = np.ones(len(images), bool)
    repeated[first] = False
    return repeated
