"""A text in a file is the same text, however little of it is in memory."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.text import long_text
from core.text.long_text import Decoding, LongText, NotUTF8Error, stretches

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
    opened = LongText.opened(path)
    assert (str(opened), len(opened), str(opened[start:stop])) == (text, len(text), text[start:stop])
    written[:start].end_file()
    assert (path.read_bytes().decode(), str(written[:start])) == (text[:start], text[:start])
    assert str(LongText.written(pieces, path, limit=start)) == text[:start]


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"abc\xff\xfe")
    with pytest.raises(UserError, match="text: not UTF-8"):
        LongText.opened(tmp_path / "text")


def test_stretches_of_a_long_text_are_of_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_text, "BLOCK", 10)
    assert list(stretches("0123456789" * 10, 30)) == ["0123456789", "5678901234", "0123456789"]
    text = "no more than thirty characters"
    assert "".join(stretches(text, 30)) == text


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
