"""Which part of a text is for training, which for validation and which for the test."""

from __future__ import annotations

from typing import TypeVar

from core.text.long_text import LongText

AnyText = TypeVar("AnyText", str, LongText)
SPLITS = ("train", "validation", "test")


def split(text: AnyText, validation: float, test: float) -> dict[str, AnyText]:
    """Three contiguous blocks of `text`, cut after line ends where there is one near: nothing lost, nothing twice."""
    first = _line_end(text, round(len(text) * (1 - validation - test)))
    second = max(first, _line_end(text, round(len(text) * (1 - test))))
    return {"train": text[:first], "validation": text[first:second], "test": text[second:]}


def _line_end(text: str | LongText, position: int) -> int:
    found = str(text[position : position + 200]).find("\n")
    return position if found < 0 else position + found + 1
