"""Byte-level byte-pair encoding: merges that `tokenizers` learns and saves, applied by `tiktoken` with equal ids.

It round-trips every byte sequence, because all 256 bytes are in its vocabulary; invalid UTF-8 travels as Python's
surrogate escapes.
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.progress import Progress
from core.text.long_text import BETWEEN_WORDS, BLOCK, LongText, between_words, stretches

if TYPE_CHECKING:
    from tiktoken import Encoding

log = logging.getLogger(__name__)

PIECE = 1 << 17  # characters that one thread of `tokenizers` encodes at once
LEARNED_FROM = 1 << 26  # characters of a text, spread evenly, that merges are learned from at most
LONGEST_RUN = 500  # characters without a space that merges are learned from at once
_CUT = re.compile(rf"\S{{{LONGEST_RUN}}}(?=\S)|\s{{{LONGEST_RUN}}}(?=\s)")

# What GPT-2 splits text into, as ByteLevel of `tokenizers` does. Only the look-ahead needs an engine that backtracks;
# with the rest in one group, letters first, it is left once a match: 1.4 times as fast as in the usual order.
SPLIT = r"(?: ?\p{L}+|'(?:[sdmt]|ll|ve|re)| ?\p{N}+| ?[^\s\p{L}\p{N}]+)|\s+(?!\S)|\s+"
_SPECIAL = "<|none|>"  # never allowed in a text; `tiktoken` looks for an empty word at every byte if there is none

PLAIN: dict[str, Any] = {
    "normalizer": None,
    "post_processor": None,
    "truncation": None,
    "padding": None,
    "added_tokens": [],
}
PLAIN_SPLIT: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
PLAIN_MODEL: dict[str, Any] = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}


class BPETokenizer:
    """Byte-level byte-pair encoding (Sennrich et al. 2016, over bytes as in GPT-2).

    Args:
        serialized: JSON text of a `tokenizers.Tokenizer`.

    Raises:
        ValueError: its vocabulary lacks a byte.
    """

    def __init__(self, serialized: str) -> None:
        from tokenizers import Tokenizer as Library

        self._serialized = serialized
        self._library = Library.from_str(serialized)
        letters, vocabulary = byte_letters(), self._library.get_vocab()
        missing = set(letters) - set(vocabulary)
        if missing:
            raise ValueError(f"{len(missing)} of 256 bytes are not in the vocabulary")
        self._bytes = {letter: byte for byte, letter in enumerate(letters)}
        self._byte_ids = [vocabulary[letter] for letter in letters]

    @property
    def size(self) -> int:
        return int(self._library.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.ids(text).tolist()
        return ids

    def ids(self, text: str) -> NDArray[np.int32]:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return np.asarray(self.encode_bytes(text.encode("utf-8", "surrogateescape")), np.int32)
        if self._fast is not None:
            try:
                return self._fast.encode_to_numpy(text, disallowed_special=()).view(np.int32)
            except ValueError:  # more white space in a row than its expressions have room for: half a million or more
                log.debug("%d characters are encoded by tokenizers", len(text))
        pieces = self._library.encode_batch_fast(list(_between_words(text)), add_special_tokens=False)  # by threads
        return np.fromiter((index for piece in pieces for index in piece.ids), np.int32)

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of any bytes, UTF-8 or not."""
        ids: list[int] = []
        for piece, escaped in _split_escapes(data.decode("utf-8", "surrogateescape")):
            if escaped:
                ids += [self._byte_ids[byte] for byte in piece.encode("utf-8", "surrogateescape")]
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

    @cached_property
    def _fast(self) -> Encoding | None:
        """The same by `tiktoken`, ten times as fast; None where it might give other ids."""
        reason = _not_plain(self._library)
        if reason is not None:
            log.warning("text is encoded by tokenizers, a tenth as fast as by tiktoken: %s", reason)
            return None
        from tiktoken import Encoding

        vocabulary = self._library.get_vocab()
        ranks = {bytes(map(self._bytes.__getitem__, token)): index for token, index in vocabulary.items()}
        return Encoding("bpe", pat_str=SPLIT, mergeable_ranks=ranks, special_tokens={_SPECIAL: len(ranks)})


def _not_plain(library: Any) -> str | None:
    """Why `tiktoken` could split or merge a text otherwise than `library`; None if it cannot.

    Of the pairs side by side, `tokenizers` merges the one listed first, `tiktoken` the one whose bytes are the token of
    the lowest id. Let each merge make the next id, and each token, encoded alone, be itself. Then both are the same:
    while x and y are side by side, no merge has crossed the ends of x + y, so its bytes have been merged as they would
    be alone. If x + y is a token, alone they end as that token, and the last merge on the way is (x, y): it is listed,
    at the place that the id says. Of equal pairs both take the leftmost.
    """
    described = json.loads(library.to_str())
    model, split = described["model"], described["pre_tokenizer"] or {}
    for part, plain in ((described, PLAIN), (split, PLAIN_SPLIT), (model, PLAIN_MODEL)):
        for key, value in plain.items():
            if part.get(key) != value:
                return f"its {key} is {json.dumps(part.get(key))[:80]}"
    vocabulary: dict[str, int] = model["vocab"]
    if {*map(vocabulary.get, byte_letters())} != {*range(256)} or len(vocabulary) != 256 + len(model["merges"]):
        return "its vocabulary is not 256 bytes and then a token for each merge"
    for index, pair in enumerate(model["merges"], 256):
        if vocabulary["".join(pair)] != index:
            return f"merge {index - 256} does not make token {index}"
    for token, index in vocabulary.items():
        if [each.id for each in library.model.tokenize(token)] != [index]:
            return f"token {index} is not itself when it is encoded"
    return None


def learned(text: str | LongText, vocabulary: int) -> BPETokenizer:
    """Up to `vocabulary` tokens: the 256 bytes, and merges learned from `text`."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=sorted(byte_letters()), show_progress=False)
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


def _between_words(text: str) -> Iterator[str]:
    """`text` in parts of `PIECE` characters or more, cut only where no token crosses."""
    start = 0
    while start < len(text):
        match = BETWEEN_WORDS.search(text, start + PIECE)
        stop = match.start() if match else len(text)
        yield text[start:stop]
        start = stop


def byte_letters() -> list[str]:
    """GPT-2's printable letter for each byte: printable ones stand for themselves, the rest follow from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _split_escapes(text: str) -> list[tuple[str, bool]]:
    """`text` cut where surrogate escapes (lone bytes) begin and end."""
    runs = groupby(text, key=lambda character: "\udc80" <= character <= "\udcff")
    return [("".join(characters), escaped) for escaped, characters in runs]
