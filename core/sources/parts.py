"""The parts that data sets come in, by the names that people give them."""

from __future__ import annotations

from typing import Literal

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
SYNONYMS: dict[Part, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "tst"),
}


def part_of(name: str) -> Part | None:
    """The part that `name` means, in any case; None if it means none."""
    return next((part for part, names in SYNONYMS.items() if name.lower() in names), None)
