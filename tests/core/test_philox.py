"""Philox's bits are those of its authors, by torch's operator and by integers; normals are normal."""

import numpy as np
import pytest
import torch
from scipy import stats

from core import philox

# From kat_vectors of Random123, the authors' library: counter 0, key 0.
KNOWN = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


@pytest.mark.parametrize("draw", [philox.uniform, philox.by_rounds])
def test_the_bits_are_those_of_the_authors(draw) -> None:
    bits = (draw(torch.tensor([0]), 4)[0] * 2**24).long().tolist()
    assert bits == [word & 0xFFFFFF for word in KNOWN]


def test_rounds_of_integers_give_what_the_operator_gives() -> None:
    if philox.OPERATOR is None:
        pytest.skip(f"torch {torch.__version__} has no operator for Philox")
    keys = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63), 0x123456789ABCDEF])
    for count in (0, 1, 3, 4, 5, 4099):
        assert torch.equal(philox.uniform(keys, count), philox.by_rounds(keys, count))


def test_a_number_is_the_same_whatever_is_drawn_beside_it() -> None:
    keys = torch.arange(7)
    many = philox.normal(keys, 1001)
    for rows, count in ((slice(2, 3), 1001), (slice(0, 7), 13), (slice(5, 7), 1)):
        assert torch.equal(philox.normal(keys[rows], count), many[rows, :count])


def test_normals_are_normal() -> None:
    numbers = philox.normal(torch.arange(1000), 500).flatten().double().numpy()
    assert stats.kstest(numbers, "norm").pvalue > 1e-3
    assert abs(stats.kurtosis(numbers)) < 5 * np.sqrt(24 / len(numbers))
    assert np.abs(numbers).max() < 5.3


def test_no_bits_give_an_infinity() -> None:
    ends = torch.tensor([0.0, 1 - 2.0**-24])
    assert torch.equal(ends.mul(2).sub(1 - 2.0**-24), torch.tensor([-1 + 2.0**-24, 1 - 2.0**-24]))
    assert ends.mul(2).sub(1 - 2.0**-24).erfinv().isfinite().all()


def test_mixing_is_that_of_splitmix_and_moves_half_of_the_bits() -> None:
    numbers = torch.arange(1 << 16)
    mixed = philox.mixed(numbers)
    assert len(mixed.unique()) == len(numbers)
    known = philox.mixed(torch.tensor([0x9E3779B97F4A7C15 - 2**64]))  # the first number of SplitMix64 from 0
    assert int(known) == 0xE220A8397B1DCDAF - 2**64
    moved = [(word & (1 << 64) - 1).bit_count() for word in (mixed[1:] ^ mixed[:-1]).tolist()]
    assert abs(np.mean(moved) - 32) < 0.1, "the standard error is .016"
