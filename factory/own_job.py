"""A job for a person's own data, from a look at them: what `textdiffusion init NAME --data PLACE` writes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from core import storage
from core.config import validate
from core.errors import UserError
from core.names import inside
from core.sources.archives import unpacked
from core.sources.config import HubPlace
from core.sources.huggingface import holds_data_set, loaded
from core.sources.listing import listing
from core.sources.summary import Tally
from core.text.long_text import Decoding, NotUTF8Error
from factory.own_images import Values, images_job

PROSE = (".txt", ".text", ".md", ".markdown", ".rst")  # how files of text end that are read together


def own_job(name: str, place: str) -> tuple[Values, list[str]]:
    """The sections of a job for the data at `place`, and what was seen and decided, a line each.

    Raises:
        UserError: there are no data that can be read, or they cannot be used together.
    """
    if storage.is_remote(place):
        raise UserError(f"--data: {place} is in a bucket; look at a copy of some of it here, then set data.data_dir")
    if not Path(place).exists():
        raise UserError(f"--data: {place}: no such file or folder")
    with unpacked(place, Tally()) as inner:
        files = listing(inner).files if Path(inner).is_dir() else [Path(inner).name]
        if not files:
            raise UserError(f"--data: {place}: is empty; it must have images or text")
        if _are_images(inner, files):
            values, notes = images_job(name, inner, place)
        else:
            values, notes = _text_job(inner, place, files)
    return {"job": name, **values}, notes


def _are_images(inner: str, files: list[str]) -> bool:
    from core.images.sources.decode import suffixes

    if any(name.endswith(".npz") or "ubyte" in name or name.lower().endswith(suffixes()) for name in files):
        return True
    if not holds_data_set(inner):
        return False
    with loaded(inner, HubPlace(), Tally()) as parts:
        return any(type(feature).__name__ == "Image" for feature in parts["train"].features.values())


def _text_job(inner: str, place: str, files: list[str]) -> tuple[Values, list[str]]:
    from core.text.config import TextData
    from core.text.source import read_source

    chosen: Values = {"source": "file"}
    notes = []
    if holds_data_set(inner):
        chosen["source"] = "huggingface"
    elif Path(inner).is_dir():
        read, left = _kinds_of_text(inner, files)
        if not read:
            raise UserError(f"--data: {place}: has neither images nor text; there are {_counted(left)}")
        chosen |= {"suffixes": list(read)} if list(read) != [".txt"] else {}
        notes.append(f"{_counted(read)} files" + (f"; left out: {_counted(left)} (data.suffixes)" if left else ""))
    text = "".join(read_source(validate(TextData, {**chosen, "data_dir": inner}, "--data")))
    vocabulary = 1024 if len(text) > 200_000 else 512
    context = 128 if len(text) > 20_000 else 32
    budget: Values = {
        "batch_size": 8,
        "optimizer": "muon",
        "learning_rate": 2.0e-3,
        "weight_decay": 0.05,
        "warmup_examples": 400,
    }
    first, second = (6.0, 9.0) if len(text) > 500_000 else (2.0, 2.5)
    values: Values = {
        "description": f"{len(text):,} characters of {Path(place).name}",
        "modality": "text",
        "data": {**chosen, "data_dir": place, "tokenizer": {"kind": "bpe", "vocabulary": vocabulary}},
        "model": {"context": context, "transformer": {"width": 192, "depth": 4, "heads": 3}},
        "autoregressive": {"minutes": first, **budget},
        "train": {"minutes": second, **budget},
        "warm_start": True,
        "sample": {"count": 24, "steps": 16, "temperature": 0.9, "guided_count": 2},
        "evaluate": {"spans": [8, 16, 32] if context == 128 else [], "span_count": 12, "bound_windows": 32},
        "gate": {"metric": "bits_per_character_1", "better": "lower"},
    }
    notes += [
        f"{len(text):,} characters of text",
        f"{first + second:g} minutes of training; with samples and measures about {2 * (first + second):.0f} in all",
    ]
    return values, notes


def _kinds_of_text(folder: str, files: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """How many files have each suffix: of those to read, and of the others. Read are the suffixes of prose; where
    there are none, all whose first file is text."""
    counts = Counter(Path(name).suffix.lower() for name in files)
    read = [suffix for suffix in PROSE if counts[suffix]]
    if not read:
        first = {Path(name).suffix.lower(): name for name in reversed(files)}
        read = [suffix for suffix in sorted(counts) if re.fullmatch(r"\.\w{1,19}", suffix)]
        read = [suffix for suffix in read if _is_text(inside(folder, first[suffix], links=True))][:50]
    return {suffix: counts.pop(suffix) for suffix in read}, dict(counts)


def _is_text(path: str) -> bool:
    with storage.open_read(path) as stream:
        start = stream.read(4096)
    try:
        return "\0" not in Decoding()(start)
    except NotUTF8Error:
        return False


def _counted(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in kinds.items())
