"""Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): numbers without a state.

Number i of a key is a function of the two alone, so rows of a batch are drawn side by side, on whichever device they
are wanted. torch has it as an operator from 2.14 on; what earlier versions and other devices do is below, with the
same bits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MULTIPLIERS, ROUNDS = (0xD2511F53, 0xCD9E8D57), 10
WEYL = (0x9E3779B9, 0xBB67AE85)  # what the two halves of a key grow by from round to round
LOW = 0xFFFF_FFFF
BITS = 24  # of a number that a uniform in fp32 takes
OPERATOR = getattr(torch, "_philox_uniform_", None)


def rows(keys: Tensor) -> Tensor:
    """Keys int64 [...] as `uniform` takes them, with the place where their numbers begin: int64 [..., 2]."""
    return torch.stack((keys, torch.zeros_like(keys)), dim=-1)


def uniform(keys: Tensor, count: int, high: float = 1.0) -> Tensor:
    """Uniforms in [0, high), multiples of high / 2^24: float32 [R, count] on the device of keys, `rows` [R, 2]."""
    if OPERATOR is None or keys.device.type not in ("cpu", "cuda"):
        return by_rounds(keys[:, 0], count) * high
    empty = torch.empty(len(keys), count, device=keys.device)
    result: Tensor = OPERATOR(empty, keys.view(torch.uint64)[:, None], 0.0, high)
    return result


def normal(keys: Tensor, count: int) -> Tensor:
    """Standard normals of as many uniforms, by the inverse of their distribution: float32 [R, count], within 5.3.

    torch's own normals take other bits on a GPU than on a CPU. These differ by rounding.
    """
    centred = uniform(keys, count, high=2.0).sub_(1 - 2.0**-BITS)  # symmetric, exact, never -1 or 1
    return centred.erfinv_().mul_(math.sqrt(2))


def by_rounds(keys: Tensor, count: int) -> Tensor:
    """`uniform` in integers that every version of torch has: float32 [R, count] on the device of keys, int64 [R]."""
    places = torch.arange(-(-count // 4), device=keys.device)  # each gives four numbers
    zero = torch.zeros(len(keys), len(places), dtype=torch.int64, device=keys.device)
    words = [zero + (places & LOW), zero + (places >> 32), zero, zero]
    halves = [(keys & LOW)[:, None], ((keys >> 32) & LOW)[:, None]]
    for _ in range(ROUNDS):
        (high0, low0), (high1, low1) = (_product(words[i], by) for i, by in zip((0, 2), MULTIPLIERS, strict=True))
        words = [high1 ^ words[1] ^ halves[0], low1, high0 ^ words[3] ^ halves[1], low0]
        halves = [(half + weyl) & LOW for half, weyl in zip(halves, WEYL, strict=True)]
    bits = torch.stack(words, dim=-1).flatten(1)[:, :count] & ((1 << BITS) - 1)
    return bits.float() * 2.0**-BITS


def _product(words: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """The high and the low 32 bits of 32-bit words times a 32-bit number, whose 64 bits may wrap in int64."""
    low, high = (words & 0xFFFF) * by, (words >> 16) * by  # each below 2^48
    whole = (low >> 16) + high  # the product's bits from 16 on
    return whole >> 16, ((whole & 0xFFFF) << 16) | (low & 0xFFFF)


def mixed(numbers: Tensor) -> Tensor:
    """Every bit of int64 `numbers` spread over all others (the finaliser of SplitMix64)."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        numbers = (numbers ^ (numbers >> shift & (1 << 64 - shift) - 1)) * factor  # a shift without the sign
    return numbers
