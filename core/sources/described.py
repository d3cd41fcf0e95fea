"""What became of a data set's source, in a few lines for a person: from its dataset.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.records import parsed
from core.sources.parts import PARTS
from core.sources.summary import Summary

CLASSES_SHOWN = 12


def summary_lines(metadata: Mapping[str, Any]) -> list[str]:
    """The lines of a dataset.json, of images or of text.

    Raises:
        UserError, KeyError, TypeError: it does not hold what prepare-data writes.
    """
    return _text(metadata) if metadata.get("modality") == "text" else _images(metadata)


def _images(metadata: Mapping[str, Any]) -> list[str]:
    """What became of the source, for a person: images and classes, the split, what was skipped and changed."""
    names, counts = metadata["class_names"], metadata["counts"]
    by_class = map(sum, zip(*(metadata["class_histogram"][split] for split in PARTS), strict=True))
    shown = ", ".join(f"{name} {count:,}" for name, count in zip(names[:CLASSES_SHOWN], by_class, strict=False))
    more = f" and {len(names) - CLASSES_SHOWN} more" if len(names) > CLASSES_SHOWN else ""
    classes = (
        f"{len(names)} classes: {shown}{more}" if metadata["labelled"] else "no classes: an unconditional data set"
    )
    shape = metadata["shape"]
    colour = "grey" if len(shape) == 2 else "coloured"
    return [
        f"data: {sum(counts.values()):,} {colour} images of {shape[1]} x {shape[0]} pixels; {classes}",
        "split: " + ", ".join(f"{split} {counts[split]:,}" for split in PARTS),
        *parsed(Summary, metadata["summary"], "summary").lines("image"),
    ]


def _text(metadata: Mapping[str, Any]) -> list[str]:
    """What became of the source, for a person: its size, the split, the tokens, what was skipped and changed."""
    counts = metadata["counts"]
    return [
        f"data: {sum(counts.values()):,} characters of {metadata['source']};"
        f" {metadata['vocabulary_size']:,} tokens ({metadata['tokenizer']}),"
        f" {metadata['characters_per_token']:g} characters each",
        "split: " + ", ".join(f"{split} {counts[split]:,}" for split in PARTS) + " characters, by position",
        *parsed(Summary, metadata["summary"], "summary").lines("file"),
    ]
