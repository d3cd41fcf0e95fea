"""Which part of a text is for training, which for validation and which for the test."""

from __future__ import annotations

SPLITS = ("train", "validation", "test")


def split(text: str, validation: float, test: float) -> dict[str, str]:
    """Three contiguous blocks of `text`, cut after line ends where there is one near: nothing lost, nothing twice."""
    first = _line_end(text, round(len(text) * (1 - validation - test)))
    second = max(first, _line_end(text, round(len(text) * (1 - test))))
    return {"train": text[:first], "validation": text[first:second], "test": text[second:]}


def _line_end(text: str, position: int) -> int:
    found = text.find("\n", position, position + 200)
    return position if found < 0 else found + 1
