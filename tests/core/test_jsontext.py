"""JSON from outside: lines end with a line feed alone, and what no reader could bear is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core import jsontext, storage
from core.errors import UserError

SEPARATORS = "\u2028 \u2029 \x85 \x0b \x0c \x1c \x1d \x1e \r \t \x00 \x7f"


def test_lines_with_every_separator_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [{"text": f"one{SEPARATORS}two\nthree"}, {"text": SEPARATORS}]
    storage.write_json_lines(tmp_path / "rows.jsonl", rows)
    assert storage.read_json_lines(tmp_path / "rows.jsonl") == rows


def test_an_odd_line_is_named_or_left_out() -> None:
    data = b'{"a": 1}\n{"a": \n\n[3]\n\xff\n'
    with pytest.raises(UserError, match="log: line 2: not valid JSON"):
        jsontext.parse_lines(data, "log")
    odd: list[UserError] = []
    assert jsontext.parse_lines(data, "log", odd=odd.append) == [{"a": 1}, [3]]
    assert [str(error)[:11] for error in odd] == ["log: line 2", "log: line 5"]


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b"[" * 100_000,
        b'{"n": ' + b"9" * 400 + b"}",
        b"9" * 5000,
        b'{"text": "\\ud800"}',
        b"\xff\xfe{}",
        b"",
    ],
)
def test_what_no_reader_could_bear_is_one_line(data: bytes) -> None:
    with pytest.raises(UserError, match="x: not valid JSON") as refused:
        jsontext.parse(data, "x")
    assert "\n" not in str(refused.value)


def test_sane_values_are_what_json_says() -> None:
    for value in ([[[1, 2.5, None, True]]], {"digits": "1" * 400}, [{}] * 200, "\U0001f600", 10**299):
        assert jsontext.parse(json.dumps(value).encode(), "x") == value
