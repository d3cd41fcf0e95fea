"""What a right side is worth: the product of matrices against a sum over every middle."""

from __future__ import annotations

import itertools
import math

import pytest

from benchmarks.right_side import laws, nats, row
from core.text.metrics import NGramJudge

TEXT, LETTERS = "abcabcaabbcabcacbabc" * 3, "abc"


@pytest.mark.parametrize("order", [2, 3, 4])
def test_the_sum_over_all_middles_is_that_of_every_single_one(order: int) -> None:
    judge = NGramJudge(TEXT, order)
    left, middle, right = "abc"[-(order - 1) :], "aab", "cab"[: order - 1]

    def joint(gap: str) -> float:
        text, start = left + gap + right, len(left)
        return math.prod(judge.probability(text[i - start : i], text[i]) for i in range(start, len(text)))

    every = sum(joint("".join(gap)) for gap in itertools.product(LETTERS, repeat=len(middle)))
    own = math.prod(judge.probability((left + middle)[i : i + len(left)], letter) for i, letter in enumerate(middle))
    ids = [[LETTERS.index(letter) for letter in part] for part in (left, middle, right)]
    alone, both = nats(laws(judge, LETTERS), *ids)
    assert alone == pytest.approx(-math.log(own))
    assert both == pytest.approx(-math.log(joint(middle) / every))


def test_a_right_side_helps_on_average_and_less_in_longer_gaps() -> None:
    table = laws(NGramJudge(TEXT, 3), LETTERS)
    text = [LETTERS.index(letter) for letter in TEXT]
    short, long = (row(table, text, gap, 40) for gap in (2, 12))
    assert short["left side"] - short["both sides"] > long["left side"] - long["both sides"] > 0
