"""Text data: where it comes from, how it is checked and split, and the folder it is kept in.

A data set folder holds {train,validation,test}.txt, the same as token ids in .npy files, tokenizer.json and
dataset.json. The splits are three contiguous blocks of the text, so that no held-out line has its neighbours in the
training text.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core import storage
from core.errors import UserError
from core.names import inside
from core.printable import say
from core.records import facts
from core.sources.described import summary_lines
from core.sources.summary import Tally
from core.storage import integrity
from core.text import tokenizer as tokenizers
from core.text.config import TextData
from core.text.source import read_source
from core.text.splits import SPLITS, split
from core.text.tokenizer import Tokenizer

MIN_CHARACTERS = 1000  # less cannot be split into three parts that say anything


@dataclass(frozen=True)
class TextSet:
    """A prepared data set: its texts, token ids and tokenizer."""

    texts: dict[str, str]
    tokens: dict[str, Tensor]  # int64 [N] for each split
    tokenizer: Tokenizer
    metadata: dict[str, Any]

    @property
    def characters_per_token(self) -> float:
        return len(self.texts["train"]) / len(self.tokens["train"])

    def retokenized(self, tokenizer: Tokenizer, splits: Sequence[str]) -> TextSet:
        """The same texts with the tokens of `tokenizer` in `splits`, and no tokens in others; itself if the tokenizer
        is its own.

        Raises:
            UserError: a text has a character outside the vocabulary.
        """
        if tokenizer.to_json() == self.tokenizer.to_json():
            return self
        tokens = {name: torch.tensor(tokenizer.encode(self.texts[name]), dtype=torch.long) for name in splits}
        return replace(self, tokens=tokens, tokenizer=tokenizer)


def prepare(config: TextData, out: Path) -> dict[str, Any]:
    """Reads, checks, splits, tokenizes and hashes a text into the folder `out`; returns its metadata."""
    tally = Tally()
    return prepare_text(*read_source(config, tally), config, out, tally)


def prepare_text(text: str, source: str, config: TextData, out: Path, tally: Tally | None = None) -> dict[str, Any]:
    """The same for a text that was read already; `source` names it in errors and metadata.

    A vocabulary of characters is that of all the text: held out is text at other places, not in other letters. The
    merges of BPE are learned from the training split alone.

    Raises:
        UserError: it is too short.
    """
    tally = tally or Tally()
    if config.limit is not None:
        text = text[: config.limit]
    if len(text.strip()) < MIN_CHARACTERS:
        raise UserError(f"{source}: found {len(text.strip())} characters of text; at least {MIN_CHARACTERS} are needed")
    texts = split(text, config.validation_fraction, config.test_fraction)
    learned_from = text if config.tokenizer.kind == "characters" else texts["train"]
    tokenizer = tokenizers.train_tokenizer(learned_from, config.tokenizer)
    tokens = {name: tokenizers.encode_long(tokenizer, part) for name, part in texts.items()}
    described = json.dumps(tokenizer.to_json(), sort_keys=True)
    metadata: dict[str, Any] = {
        "modality": "text",
        "source": source,
        "counts": {name: len(part) for name, part in texts.items()},
        "tokens": {name: len(ids) for name, ids in tokens.items()},
        "tokenizer": config.tokenizer.kind,
        "vocabulary_size": tokenizer.size,
        "characters_per_token": round(len(texts["train"]) / len(tokens["train"]), 4),
        "split": "contiguous",
        "split_sha256": {name: hashlib.sha256(part.encode()).hexdigest() for name, part in texts.items()},
        "tokenizer_sha256": tokenizers.sha256(tokenizer.to_json()),
        "tokens_sha256": {name: hashlib.sha256(ids.tobytes()).hexdigest() for name, ids in tokens.items()},
        "summary": facts(tally.summary()),
        "content_sha256": hashlib.sha256((described + "\0" + "\0".join(texts.values())).encode()).hexdigest(),
    }
    with storage.atomic_folder(out, "dataset.json") as folder:
        for name, part in texts.items():
            storage.write_bytes(inside(folder, f"{name}.txt"), part.encode())
            np.save(inside(folder, f"{name}.npy"), tokens[name])
        storage.write_json(folder / "tokenizer.json", tokenizer.to_json())
        integrity.write_json(folder / "dataset.json", metadata)
    for line in summary_lines(metadata):
        say(line, to=sys.stderr)
    return {key: value for key, value in metadata.items() if key != "summary"}


def load(folder: Path) -> TextSet:
    """A prepared data set.

    Raises:
        UserError: a file is missing or damaged.
    """
    metadata = integrity.read_json(folder / "dataset.json")
    if metadata.get("modality") != "text":
        raise UserError(f"{folder / 'dataset.json'}: not a data set of text")
    texts, tokens = {}, {}
    tokenizer = tokenizers.load(folder / "tokenizer.json", metadata.get("tokenizer_sha256"))
    for name in SPLITS:
        data = storage.read_bytes(inside(folder, f"{name}.txt"))
        if hashlib.sha256(data).hexdigest() != metadata["split_sha256"][name]:
            raise UserError(f"{folder}/{name}.txt: content does not match the SHA-256 in dataset.json")
        texts[name] = data.decode()
        try:
            stored = np.load(inside(folder, f"{name}.npy"), allow_pickle=False)
            ids = stored.astype(np.int64)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}/{name}.npy: cannot be read: {error}") from None
        expected = metadata.get("tokens_sha256", {}).get(name)
        if expected is not None and hashlib.sha256(stored.tobytes()).hexdigest() != expected:
            raise UserError(f"{folder}/{name}.npy: content does not match tokens_sha256 in dataset.json")
        if ids.ndim != 1 or (len(ids) and not 0 <= ids.min() <= ids.max() < tokenizer.size):
            raise UserError(f"{folder}/{name}.npy: token ids outside the vocabulary of {tokenizer.size}")
        tokens[name] = torch.from_numpy(ids)
    return TextSet(texts, tokens, tokenizer, metadata)


def require_context(tokens: Tensor, context: int, where: str) -> None:
    """A UserError if `tokens` are fewer than one context."""
    if len(tokens) < context:
        raise UserError(f"{where}: found {len(tokens)} tokens, too short for one context of {context} (model.context)")


def windows(tokens: Tensor, starts: Tensor, context: int) -> Tensor:
    """The tokens from each of `starts` [B] on: int64 [B, context]."""
    return tokens[starts[:, None] + torch.arange(context)]


def held_out(tokens: Tensor, context: int, count: int) -> Tensor:
    """Up to `count` windows spread evenly over `tokens`, not overlapping: int64 [B, context]."""
    whole = len(tokens) // context
    picked = torch.linspace(0, whole - 1, min(count, whole)).round().long()
    return windows(tokens, picked * context, context)
