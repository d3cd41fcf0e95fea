"""Sums over pieces of held-out text for each of their characters: the value, its error, and what each piece says."""

from __future__ import annotations

import math

from torch import Tensor

from core.metrics import MOST_PARTS

Ratio = tuple[float, float | None]  # a value per character, and its standard error over pieces


def per_character(sums: Tensor, characters: Tensor) -> Ratio:
    """The ratio of the sums of [R] and [R], both float64, with the error of ratios."""
    value = float(sums.sum() / characters.sum())
    if len(sums) < 2:
        return round(value, 5), None
    error = (sums - value * characters).std() / math.sqrt(len(sums)) / characters.mean()
    return round(value, 5), round(float(error), 5)


def parts(sums: Tensor, characters: Tensor) -> list[float]:
    """What each piece, or up to MOST_PARTS groups of neighbours, says of the ratio: their mean is the ratio, and their
    deviation that of its error."""
    value = sums.sum() / characters.sum()
    each = value + (sums - value * characters) / characters.mean()
    return [round(float(part.mean()), 5) for part in each.tensor_split(min(len(each), MOST_PARTS))]
