"""Nearest training images, in pixels: has a model learned its images, or learned them by heart?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from core.images.shards import Images
from core.processes import parts as parallel
from core.processes import world as distributed
from core.processes.world import World

TRAIN_BLOCK = 4096  # training images held as floats at once


@dataclass(frozen=True)
class Neighbours:
    """For each of N images: `distances` float64 [N] to, and `indices` int64 [N] of, the nearest training image.

    The distance is the root mean square over pixels and channels, with pixels in 0..1; so it doesn't grow with size.
    `second` float64 [N] is the distance to the nearest that is another image, infinite if there is none.
    """

    distances: NDArray[np.float64]
    indices: NDArray[np.int64]
    second: NDArray[np.float64]

    def copies(self) -> NDArray[np.bool_]:
        """True where the nearest is at least three times closer than the second nearest (Yoon et al. 2023): learned
        by heart, by this definition."""
        result: NDArray[np.bool_] = self.distances <= self.second / 3
        return result


def nearest_images(
    images: NDArray[np.uint8],
    training: Images,
    repeated: NDArray[np.bool_],
    world: World = distributed.SINGLE_PROCESS,
) -> Neighbours:
    """The nearest of `training` [M, ...] for each of `images` [N, ...]; `training` may be memory-mapped or in
    shards, of any M.

    Images where `repeated` [M] is true are left out: they equal an earlier one (`core.images.contents.repeats`).
    Blocks of `training` are divided over `world`; the answer is the same in every process.
    """
    queries = torch.from_numpy(np.array(images)).flatten(1).float()  # [N, P]

    def nearest_of(index: int) -> parallel.Arrays:
        start = index * TRAIN_BLOCK
        block = torch.from_numpy(np.array(training[start : start + TRAIN_BLOCK])).flatten(1).float()
        # |q - t|^2 without |q|^2, which is the same for all t.
        squares = torch.addmm((block * block).sum(1), queries, block.T, alpha=-2)
        squares[:, torch.from_numpy(repeated[start : start + TRAIN_BLOCK])] = torch.inf
        values, places = squares.topk(min(2, len(block)), largest=False)
        return {"values": values.numpy(), "places": places.numpy() + start}

    best = torch.full((len(queries), 2), torch.inf)
    indices = torch.zeros((len(queries), 2), dtype=torch.int64)
    for part in parallel.arrays(nearest_of, -(-len(training) // TRAIN_BLOCK), world):
        best, order = torch.cat([best, torch.from_numpy(part["values"])], 1).topk(2, largest=False)
        indices = torch.cat([indices, torch.from_numpy(part["places"])], 1).gather(1, order)
    nearest = indices.numpy()
    first, second = (_distance(images, training[nearest[:, i]]) for i in (0, 1))
    second = np.where(best[:, 1].isinf().numpy(), np.inf, second)  # there is no other image
    return Neighbours(np.minimum(first, second), np.where(first <= second, *nearest.T), np.maximum(first, second))


def _distance(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Between images in pairs, from differences: no cancellation, so a copy is at exactly 0."""
    difference = np.asarray(images, np.float64) - np.asarray(others, np.float64)
    result: NDArray[np.float64] = np.sqrt((difference.reshape(len(images), -1) ** 2).mean(1)) / 255
    return result


def closest_of_each_class(distances: NDArray[np.float64], labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Indices of `count` rows: the closest of every class, then the second of every class, and so on."""
    order = np.argsort(distances, kind="stable")
    rank = np.empty(len(order), np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    return np.lexsort((distances, rank))[:count].astype(np.int64)
