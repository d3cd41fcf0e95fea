"""Which tokens of a block training gives, clean: those around spans to be filled in, or beside masks."""

from __future__ import annotations

import torch
from torch import Tensor

from core.randomness import Draws


def hidden_spans(draws: Draws, count: int, block: int, share: float) -> Tensor:
    """Tokens [b, count x block] that are given: in a `share` of blocks all but a span, which often begins it."""
    edges = draws.uniform(count, 2).sort(dim=-1).values
    chosen, from_start = draws.uniform(count) < share, draws.uniform(count) < 0.5
    first = (edges[..., 0] * block).long().masked_fill(from_start, 0)
    last = (edges[..., 1] * block).long()
    place = torch.arange(block)
    outside = (place < first[..., None]) | (place > last[..., None])
    return (outside & chosen[..., None]).flatten(1)


def endpoint_slots(draws: Draws, count: int, block: int) -> Tensor:
    """Tokens [b, count x block] that are given where all others are lost, at least one in each block.

    Half of the blocks begin with a gap and go on with given text; short gaps are more frequent. Of the others each
    has a share of its own, uniform as in masked diffusion, by which each token is given.
    """
    is_gap, gap, share = draws.uniform(count) < 0.5, draws.uniform(count), draws.uniform(count)
    chance = draws.uniform(count, block)
    after_gap = torch.arange(block) > (gap.square() * block).long()[..., None]
    scattered = (chance < share[..., None]) & (chance < chance.amax(dim=-1, keepdim=True))
    return torch.where(is_gap[..., None], after_gap, scattered).flatten(1)
