"""Copies against brute force, in whatever blocks the source is read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.text import copies as module
from core.text.copies import Copies, copies

SMALL = st.text(alphabet="ab c", max_size=25)


def longest(text: str, source: str) -> int:
    pieces = (text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1))
    return max((len(piece) for piece in pieces if piece in source), default=0)


@settings(deadline=None, max_examples=150)
@given(st.lists(SMALL, max_size=4), SMALL, st.integers(1, 30))
def test_copies_are_what_brute_force_finds(texts: list[str], source: str, size: int) -> None:
    lengths = [longest(text, source) for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", size)
        assert copies(texts, source, above=3) == Copies(max(lengths, default=0), sum(one > 3 for one in lengths))


def test_pieces_whose_hashes_agree_are_compared_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Rolled, "hashes", lambda own, length: own._sums[length:] * 0)
    assert copies(["abcd"], "wxyz") == Copies(0, 0)
