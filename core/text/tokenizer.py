"""Tokenizers: characters, and byte-level BPE (core/text/bpe.py). Saved as one JSON file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core import storage
from core.errors import UserError
from core.processes import limits
from core.processes.futures import in_order
from core.progress import Progress
from core.text.bpe import BPETokenizer, learned
from core.text.config import TokenizerConfig
from core.text.long_text import BLOCK, LongText, between_words

MAX_BYTES = 64 << 20
MOST = 64  # threads that encode blocks of a text


class Tokenizer(Protocol):
    """Text to token ids and back."""

    @property
    def size(self) -> int:
        """Tokens in the vocabulary; ids are 0 .. size - 1."""

    def encode(self, text: str) -> list[int]:
        """The ids of `text`. Raises UserError for a character outside the vocabulary."""

    def ids(self, text: str) -> NDArray[np.int32]:
        """The same as an array, int32 [n]: what a long text is encoded by."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""

    def to_json(self) -> dict[str, Any]:
        """What `from_json` rebuilds the tokenizer from."""


class CharacterTokenizer:
    """One token for each character of `characters`."""

    def __init__(self, characters: Sequence[str]) -> None:
        self._characters = list(characters)
        codes = [(ord(character), index) for index, character in enumerate(self._characters) if len(character) == 1]
        self._by_code = np.full(max(codes, default=(0, 0))[0] + 2, -1, np.int32)  # the last is for all that follow
        for code, index in codes:
            self._by_code[code] = index

    @property
    def size(self) -> int:
        return len(self._characters)

    @property
    def characters(self) -> list[str]:
        """The vocabulary, in the order of the ids."""
        return list(self._characters)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.ids(text).tolist()
        return ids

    def ids(self, text: str) -> NDArray[np.int32]:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        ids = self._by_code[np.minimum(codes, len(self._by_code) - 1)]
        unknown = np.flatnonzero(ids < 0)
        if len(unknown):
            raise UserError(
                f"token outside the vocabulary: found {text[unknown[0]]!r} at character {unknown[0]};"
                f" allowed: the {self.size} characters of the text it comes from, or tokenizer.kind: bpe for any text"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._characters[index] for index in ids)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "characters", "characters": self._characters}


def train_tokenizer(text: str | LongText, config: TokenizerConfig) -> Tokenizer:
    """A tokenizer for `text`: its characters, or BPE merges learned from it."""
    if config.kind == "characters":
        return CharacterTokenizer(sorted({letter for block in between_words(text, BLOCK) for letter in set(block)}))
    return learned(text, config.vocabulary)


def encode_blocks(tokenizer: Tokenizer, text: str | LongText) -> Iterator[NDArray[np.int32]]:
    """The ids of a long text, int32 [n] after int32 [n], with its progress.

    Together they are what `encode` gives, unless more than `BLOCK` characters have no space or end of line between
    them.
    """
    threads, done = min(limits.processors(), MOST), 0
    with Progress("tokenize", len(text), "characters") as progress, ThreadPoolExecutor(threads) as pool:

        def encoded(block: str) -> tuple[int, NDArray[np.int32]]:
            return len(block), tokenizer.ids(block)

        blocks = (pool.submit(encoded, block) for block in between_words(text, BLOCK))
        for length, ids in in_order(blocks, 2 * threads):
            yield ids
            progress.update(done := done + length)


def from_json(value: Any, where: str) -> Tokenizer:
    """The tokenizer that `to_json` described.

    Raises:
        UserError: it is not such a description; `where` is named.
    """
    try:
        if value["kind"] == "characters":
            return CharacterTokenizer([str(character) for character in value["characters"]])
        if value["kind"] == "bpe":
            return BPETokenizer(json.dumps(value["tokenizer"]))
    except BaseException as error:  # the library raises bare Exception, or its own kind where Rust panics
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{where}: not a tokenizer: {type(error).__name__}: {error}") from None
    raise UserError(f"{where}: tokenizer kind {value['kind']!r}; allowed: characters, bpe")


def sha256(saved: Any) -> str:
    """The hash of what `to_json` gave, by which models and data sets name their tokenizer."""
    return hashlib.sha256(json.dumps(saved, sort_keys=True).encode()).hexdigest()


def load(uri: str | Path, expected: str | None = None) -> Tokenizer:
    """The tokenizer saved at `uri`, whose hash is `expected`, if it is known.

    Raises:
        UserError: it is missing, damaged, or another one.
    """
    saved = storage.read_json(uri, limit=MAX_BYTES)
    if expected is not None and sha256(saved) != expected:
        raise UserError(f"{uri}: content does not match tokenizer_sha256 in the model's description; copy it again")
    return from_json(saved, str(uri))
