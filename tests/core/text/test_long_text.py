"""A text in a file is the same text, however little of it is in memory."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.text import long_text
from core.text.long_text import Decoding, LongText, NotUTF8Error

TEXTS = st.text(alphabet="ab é€🙂\n\r\ufeff", max_size=60)


@pytest.fixture(scope="module", autouse=True)
def blocks_of_four() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_text, "BLOCK", 4)
        yield


@given(st.lists(TEXTS, max_size=6), st.integers(0, 300), st.integers(0, 300), st.integers(-300, 300))
def test_a_slice_is_what_python_cuts(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], start: int, stop: int, end: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "long"
    text, written = "".join(pieces), LongText.written(pieces, path)
    assert (str(written), len(written), "".join(written.blocks())) == (text, len(text), text)
    assert str(written[start:stop]) == text[start:stop]
    assert str(written[start:stop][:end]) == text[start:stop][:end]
    assert all(len(block) <= 4 for block in written.blocks())
    assert str(LongText.written(pieces, path, limit=start)) == text[:start]


@given(TEXTS, st.lists(st.integers(0, 250)))
def test_bytes_decode_alike_wherever_they_are_cut(text: str, cuts: list[int]) -> None:
    data, decoding = text.encode(), Decoding()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [decoding(data[start:stop]) for start, stop in pairwise(places)]
    found = "".join([*parts, decoding(b"", end=True)])
    plain = text.removeprefix("\ufeff")
    assert found == plain.replace("\r\n", "\n")
    assert (decoding.byte_order_mark, decoding.crlf) == (plain != text, "\r\n" in text)


@given(TEXTS, st.integers(0, 250))
def test_a_byte_that_is_no_utf8_is_named_by_its_offset_in_the_file(text: str, cut: int) -> None:
    data, decoding = text.encode(), Decoding()
    bad = data + b"\xff" + data
    with pytest.raises(NotUTF8Error, match=f"byte 0xff at offset {len(data)}$"):
        for part in (bad[:cut], bad[cut:]):
            decoding(part)
