"""Tokenizers: characters, and byte-level BPE by the `tokenizers` library. Saved as one JSON file.

BPE round-trips every byte sequence, because all 256 bytes are in its vocabulary; invalid UTF-8 travels as Python's
surrogate escapes.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core import storage
from core.errors import UserError
from core.progress import Progress
from core.text.config import TokenizerConfig
from core.text.long_text import BETWEEN_WORDS, BLOCK, LongText, between_words, stretches

MAX_BYTES = 64 << 20
PIECE = 1 << 17  # characters that one thread encodes at once
LEARNED_FROM = 1 << 26  # characters of a text, spread evenly, that merges are learned from at most
LONGEST_RUN = 500  # characters without a space that merges are learned from at once
_CUT = re.compile(rf"\S{{{LONGEST_RUN}}}(?=\S)|\s{{{LONGEST_RUN}}}(?=\s)")


class Tokenizer(Protocol):
    """Text to token ids and back."""

    @property
    def size(self) -> int:
        """Tokens in the vocabulary; ids are 0 .. size - 1."""

    def encode(self, text: str) -> list[int]:
        """The ids of `text`. Raises UserError for a character outside the vocabulary."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""

    def to_json(self) -> dict[str, Any]:
        """What `from_json` rebuilds the tokenizer from."""


class CharacterTokenizer:
    """One token for each character of `characters`."""

    def __init__(self, characters: Sequence[str]) -> None:
        self._characters = list(characters)
        self._ids = {character: index for index, character in enumerate(self._characters)}

    @property
    def size(self) -> int:
        return len(self._characters)

    @property
    def characters(self) -> list[str]:
        """The vocabulary, in the order of the ids."""
        return list(self._characters)

    def encode(self, text: str) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            character = error.args[0]
            raise UserError(
                f"token outside the vocabulary: found {character!r} at character {text.index(character)};"
                f" allowed: the {self.size} characters of the text it comes from, or tokenizer.kind: bpe for any text"
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._characters[index] for index in ids)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "characters", "characters": self._characters}


class BPETokenizer:
    """Byte-level byte-pair encoding (Sennrich et al. 2016, over bytes as in GPT-2).

    Args:
        serialized: JSON text of a `tokenizers.Tokenizer`.
    """

    def __init__(self, serialized: str) -> None:
        from tokenizers import Tokenizer as Library
        from tokenizers.pre_tokenizers import ByteLevel

        self._serialized = serialized
        self._library = Library.from_str(serialized)
        self._bytes = {letter: byte for byte, letter in enumerate(byte_letters())}
        missing = set(ByteLevel.alphabet()) - set(self._library.get_vocab())
        if missing:
            raise ValueError(f"{len(missing)} of 256 bytes are not in the vocabulary")

    @property
    def size(self) -> int:
        return int(self._library.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return self.encode_bytes(text.encode("utf-8", "surrogateescape"))
        if len(text) <= PIECE:
            return list(self._library.encode(text, add_special_tokens=False).ids)
        pieces = self._library.encode_batch_fast(list(_between_words(text)), add_special_tokens=False)  # by threads
        return [index for piece in pieces for index in piece.ids]

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of any bytes, UTF-8 or not."""
        ids: list[int] = []
        text = data.decode("utf-8", "surrogateescape")
        vocabulary, letters = self._library.get_vocab(), byte_letters()
        for piece, escaped in _split_escapes(text):
            if escaped:
                ids += [vocabulary[letters[byte]] for byte in piece.encode("utf-8", "surrogateescape")]
            else:
                ids += self.encode(piece)
        return ids

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The exact bytes of `ids`."""
        tokens = (self._library.id_to_token(int(index)) or "" for index in ids)
        return bytes(self._bytes[letter] for token in tokens for letter in token)

    def decode(self, ids: Sequence[int]) -> str:
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def to_json(self) -> dict[str, Any]:
        return {"kind": "bpe", "tokenizer": json.loads(self._serialized)}


def train_tokenizer(text: str | LongText, config: TokenizerConfig) -> Tokenizer:
    """A tokenizer for `text`: its characters, or BPE merges learned from it."""
    if config.kind == "characters":
        return CharacterTokenizer(sorted({letter for block in between_words(text, BLOCK) for letter in set(block)}))
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=config.vocabulary, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(_pieces(text), trainer)
    return BPETokenizer(library.to_str())


def _pieces(text: str | LongText) -> Iterator[str]:
    """The lines of `text`, whose only end is LF; a run without a space, or of spaces, is cut into `LONGEST_RUN`.

    Learning merges from a run takes time that grows with its square: 9 s for 100,000 characters without a space.
    """
    with Progress("learn BPE", min(len(text), LEARNED_FROM), "characters") as progress:
        done = 0
        for block in _learned_from(text):
            for line in io.StringIO(block, newline="\n"):
                start = 0
                if len(line) > LONGEST_RUN:
                    for cut in _CUT.finditer(line):
                        yield line[start : cut.end()]
                        start = cut.end()
                yield line[start:]
            progress.update(done := done + len(block))


def _learned_from(text: str | LongText) -> Iterator[str]:
    """All of `text`, or stretches of a very long one: what merges a language has shows early."""
    return between_words(text, BLOCK) if len(text) <= LEARNED_FROM else stretches(text, LEARNED_FROM)


def encode_blocks(tokenizer: Tokenizer, text: str | LongText) -> Iterator[NDArray[np.int32]]:
    """The ids of a long text, int32 [n] after int32 [n], with its progress.

    Together they are what `encode` gives, unless more than `BLOCK` characters have no space or end of line between
    them.
    """
    done = 0
    with Progress("tokenize", len(text), "characters") as progress:
        for block in between_words(text, BLOCK):
            yield np.asarray(tokenizer.encode(block), np.int32)
            progress.update(done := done + len(block))


def _between_words(text: str) -> Iterator[str]:
    """`text` in parts of `PIECE` characters or more, cut only where no token crosses."""
    start = 0
    while start < len(text):
        match = BETWEEN_WORDS.search(text, start + PIECE)
        stop = match.start() if match else len(text)
        yield text[start:stop]
        start = stop


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


def byte_letters() -> list[str]:
    """GPT-2's printable letter for each byte: printable ones stand for themselves, the rest follow from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _split_escapes(text: str) -> list[tuple[str, bool]]:
    """`text` cut where surrogate escapes (lone bytes) begin and end."""
    runs = groupby(text, key=lambda character: "\udc80" <= character <= "\udcff")
    return [("".join(characters), escaped) for escaped, characters in runs]
