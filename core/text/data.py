"""Text data: where it comes from, how it is checked and split, and the folder it is kept in.

A data set folder holds {train,validation,test}.txt, the same as token ids in .npy files (uint16 for up to 65,536
tokens, int32 for more), tokenizer.json and dataset.json. The splits are three contiguous blocks of the text, so that no
held-out line has its neighbours in the training text.

Text and tokens may be larger than memory: preparing holds a block of them at a time, training maps the tokens.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from core.storage.faults import as_storage_error
from core.text import token_files
from core.text import tokenizer as tokenizers
from core.text.config import TextData
from core.text.long_text import LongText
from core.text.source import read_source, source_name
from core.text.splits import SPLITS, split
from core.text.tokenizer import Tokenizer

MIN_CHARACTERS = 1000  # less cannot be split into three parts that say anything


@dataclass(frozen=True)
class TextSet:
    """A prepared data set: its texts, token ids and tokenizer."""

    texts: Mapping[str, str]
    tokens: dict[str, Tensor]  # integers [N] for each split, mapped into memory; `windows` gives int64
    tokenizer: Tokenizer
    metadata: dict[str, Any]

    @property
    def characters_per_token(self) -> float:
        """Of the training split, or of the first that has tokens."""
        name = next(name for name in SPLITS if name in self.tokens)
        return float(self.metadata["counts"][name] / len(self.tokens[name]))

    def retokenized(self, tokenizer: Tokenizer, splits: Sequence[str]) -> TextSet:
        """The same texts with the tokens of `tokenizer` in `splits`, and no tokens in others; itself if the tokenizer
        is its own.

        Raises:
            UserError: a text has a character outside the vocabulary.
        """
        if tokenizer.to_json() == self.tokenizer.to_json():
            return self
        tokens = {name: _tokens(tokenizer, self.long(name)) for name in splits}
        return replace(self, tokens=tokens, tokenizer=tokenizer)

    def long(self, split: str) -> str | LongText:
        """The text of a split as what is read where it is asked for: it may be longer than memory."""
        return self.texts.long(split) if isinstance(self.texts, _Texts) else self.texts[split]


def _tokens(tokenizer: Tokenizer, text: str | LongText) -> Tensor:
    blocks = tokenizers.encode_blocks(tokenizer, text)
    return torch.from_numpy(np.concatenate([np.empty(0, np.int32), *blocks]))


class _Texts(Mapping[str, str]):
    """The text of each split, read when it is asked for: who trains needs tokens alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, split: str) -> str:
        return str(self.long(split))

    def long(self, split: str) -> LongText:
        if split not in SPLITS:
            raise KeyError(split)
        with as_storage_error(self._folder, "read"):
            return LongText.opened(Path(inside(self._folder, f"{split}.txt")))

    def __iter__(self) -> Iterator[str]:
        return iter(SPLITS)

    def __len__(self) -> int:
        return len(SPLITS)


def prepare(config: TextData, out: Path) -> dict[str, Any]:
    """Reads, checks, splits, tokenizes and hashes a text into the folder `out`; returns its metadata."""
    tally = Tally()
    return prepare_text(read_source(config, tally), source_name(config), config, out, tally)


def prepare_text(
    pieces: Iterable[str], source: str, config: TextData, out: Path, tally: Tally | None = None
) -> dict[str, Any]:
    """The same for a text that comes in pieces, of which one at a time is in memory; `source` names it in errors and
    metadata.

    A vocabulary of characters is that of all the text: held out is text at other places, not in other letters. The
    merges of BPE are learned from the training split alone.

    Raises:
        UserError: it is too short.
    """
    tally = tally or Tally()
    with as_storage_error(out, "written"), storage.atomic_folder(out, "dataset.json") as folder:
        text = LongText.written(pieces, inside(folder, "train.txt"), config.limit)
        _require_length(text, source)
        texts = split(text, config.validation_fraction, config.test_fraction)
        learned_from = text if config.tokenizer.kind == "characters" else texts["train"]
        tokenizer = tokenizers.train_tokenizer(learned_from, config.tokenizer)
        for name in SPLITS[1:]:
            texts[name] = LongText.written(texts[name].blocks(), inside(folder, f"{name}.txt"))
        texts["train"].end_file()  # it is what `text` begins with: no copy of a text that may fill a disk
        metadata = {"modality": "text", "source": source} | _write(folder, texts, tokenizer)
        metadata |= {"tokenizer": config.tokenizer.kind, "summary": facts(tally.summary())}
        integrity.write_json(folder / "dataset.json", metadata)
    for line in summary_lines(metadata):
        say(line, to=sys.stderr)
    return {key: value for key, value in metadata.items() if key != "summary"}


def _require_length(text: LongText, source: str) -> None:
    """A UserError if `text` without the white space around it is too short to be split."""
    first = last = place = 0
    for block in text.blocks():
        if block.strip():
            first = first if last else place + len(block) - len(block.lstrip())
            last = place + len(block.rstrip())
        place += len(block)
        if last - first >= MIN_CHARACTERS:
            return
    raise UserError(f"{source}: found {last - first} characters of text; at least {MIN_CHARACTERS} are needed")


def _write(folder: Path, texts: Mapping[str, LongText], tokenizer: Tokenizer) -> dict[str, Any]:
    """Writes each split's tokens beside its text, and the tokenizer; what dataset.json says of them."""
    content = hashlib.sha256(json.dumps(tokenizer.to_json(), sort_keys=True).encode())
    hashes, tokens = {}, {}
    for name, text in texts.items():
        content.update(b"\0")
        digest = hashlib.sha256()
        for block in text.blocks():
            data = block.encode()
            digest.update(data)
            content.update(data)
        hashes[name] = digest.hexdigest()
        blocks = tokenizers.encode_blocks(tokenizer, text)
        tokens[name] = token_files.write(inside(folder, f"{name}.npy"), blocks, tokenizer.size)
    storage.write_json(folder / "tokenizer.json", tokenizer.to_json())
    return {
        "counts": {name: len(text) for name, text in texts.items()},
        "tokens": {name: count for name, (count, _) in tokens.items()},
        "vocabulary_size": tokenizer.size,
        "characters_per_token": round(len(texts["train"]) / tokens["train"][0], 4),
        "split": "contiguous",
        "split_sha256": hashes,
        "tokenizer_sha256": tokenizers.sha256(tokenizer.to_json()),
        "tokens_sha256": {name: digest for name, (_, digest) in tokens.items()},
        "content_sha256": content.hexdigest(),
    }


def load(folder: Path) -> TextSet:
    """A prepared data set.

    Raises:
        UserError: a file is missing or damaged.
    """
    metadata = integrity.read_json(folder / "dataset.json")
    if metadata.get("modality") != "text":
        raise UserError(f"{folder / 'dataset.json'}: not a data set of text")
    tokenizer = tokenizers.load(folder / "tokenizer.json", metadata.get("tokenizer_sha256"))
    tokens = {}
    for name in SPLITS:
        if storage.sha256(inside(folder, f"{name}.txt")) != metadata["split_sha256"][name]:
            raise UserError(f"{folder}/{name}.txt: content does not match the SHA-256 in dataset.json")
        expected = metadata.get("tokens_sha256", {}).get(name)
        tokens[name] = token_files.opened(inside(folder, f"{name}.npy"), tokenizer.size, expected)
    return TextSet(_Texts(folder), tokens, tokenizer, metadata)


def require_context(tokens: Tensor, context: int, where: str) -> None:
    """A UserError if `tokens` are fewer than one context."""
    if len(tokens) < context:
        raise UserError(f"{where}: found {len(tokens)} tokens, too short for one context of {context} (model.context)")


def windows(tokens: Tensor, starts: Tensor, context: int) -> Tensor:
    """The tokens from each of `starts` [B] on: int64 [B, context]."""
    return tokens[starts[:, None] + torch.arange(context)].long()


def held_out(tokens: Tensor, context: int, count: int) -> Tensor:
    """Up to `count` windows spread evenly over `tokens`, not overlapping: int64 [B, context]."""
    whole = len(tokens) // context
    picked = torch.linspace(0, whole - 1, min(count, whole)).round().long()
    return windows(tokens, picked * context, context)
