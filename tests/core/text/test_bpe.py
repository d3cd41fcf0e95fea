"""Byte-level BPE loses nothing, and has the same tokens whichever library merges."""

import json
import logging
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken import Encoding
from tokenizers import Regex, normalizers

from core.text import bpe

TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n" * 30
BPE = bpe.learned(TEXT, 300)
SAVED = BPE.to_json()["tokenizer"]
LETTERS = st.text(alphabet="ab 1.'s\n\r\t\u3000\x85é", max_size=120)


def by_tokenizers(tokenizer: bpe.BPETokenizer, text: str) -> list[int]:
    """The ids that the library gives which learned the merges."""
    ids: list[int] = tokenizer._library.encode(text, add_special_tokens=False).ids
    return ids


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_bpe_round_trips_every_byte_sequence(data: bytes) -> None:
    ids = BPE.encode_bytes(data)
    assert BPE.decode_bytes(ids) == data
    assert all(0 <= index < BPE.size for index in ids)


def test_bpe_has_its_vocabulary_and_shortens_text() -> None:
    assert BPE.size == 300
    assert len(BPE.encode(TEXT)) < len(TEXT) / 1.3


def test_merges_of_text_without_spaces_are_learned_from_pieces() -> None:
    """9 s for 100,000 characters in one piece, by their square; nothing is lost where it is cut."""
    letters = np.random.default_rng(0).choice(list("acgt"), 200_000)
    text = "".join(letters) + " " * 3000 + "end of a line\n"
    assert "".join(bpe._pieces(text)) == text
    assert max(len(run) for piece in bpe._pieces(text) for run in re.findall(r"\S+|\s+", piece)) <= bpe.LONGEST_RUN
    tokenizer = bpe.learned(text, 300)
    assert len(tokenizer.encode(text)) < len(text) / 1.5


def test_lines_with_spaces_are_learned_from_as_they_are() -> None:
    text = TEXT + TEXT.replace("\n", " ") + "\nand\x0cmore\u2028of it"
    *lines, last = text.split("\n")
    assert list(bpe._pieces(text)) == [*(f"{line}\n" for line in lines), last]


@given(st.text(alphabet="ab ", min_size=1, max_size=300), st.integers(256, 300), LETTERS)
@settings(max_examples=100, deadline=None)
def test_learned_merges_are_applied_as_the_library_applies_them(learned_from: str, size: int, text: str) -> None:
    tokenizer = bpe.learned(learned_from, size)
    assert tokenizer._fast is not None
    assert tokenizer.encode(text + learned_from) == by_tokenizers(tokenizer, text + learned_from)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=100))
@settings(max_examples=200, deadline=None)
def test_any_text_has_the_ids_of_the_library_and_comes_back(text: str) -> None:
    text += TEXT[:50] + text
    ids = BPE.encode(text)
    assert ids == by_tokenizers(BPE, text)
    assert BPE.decode(ids) == text


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8), st.text(alphabet="abc", max_size=40))
@settings(max_examples=200, deadline=None)
def test_merges_in_any_order_are_applied_as_listed(pairs: list[tuple[int, int]], text: str) -> None:
    """Whoever listed them: those that a lowest id would apply otherwise are left to the library."""
    tokens, merges, vocabulary = ["a", "b", "c"], [], {letter: byte for byte, letter in enumerate(bpe.byte_letters())}
    for left, right in pairs:
        pair = tokens[left % len(tokens)], tokens[right % len(tokens)]
        if "".join(pair) not in vocabulary:
            merges.append(pair)
            vocabulary["".join(pair)] = len(vocabulary)
            tokens.append("".join(pair))
    tokenizer = changed({"model": {"vocab": vocabulary, "merges": merges}})
    assert tokenizer.encode(text) == by_tokenizers(tokenizer, text)


def changed(difference: dict[str, Any]) -> bpe.BPETokenizer:
    """`BPE` saved with other parts."""
    saved = json.loads(json.dumps(SAVED))
    for part, value in difference.items():
        saved[part] = {**saved[part], **value} if isinstance(saved[part], dict) else value
    return bpe.BPETokenizer(json.dumps(saved))


A, B, C = (bpe.byte_letters().index(letter) for letter in "abc")
BYTES = {letter: byte for byte, letter in enumerate(bpe.byte_letters())}
LONELY = {"vocab": BYTES | {"bc": 256, "ab": 257, "abc": 258}, "merges": [("b", "c"), ("a", "b"), ("ab", "c")]}
SWAPPED = {"vocab": BYTES | {"bc": 257, "ab": 256}, "merges": [("b", "c"), ("a", "b")]}


@pytest.mark.parametrize(
    ("difference", "reason"),
    [
        ({"normalizer": {"type": "NFC"}}, "its normalizer is"),
        ({"pre_tokenizer": {"add_prefix_space": True}}, "its add_prefix_space is true"),
        ({"model": {"ignore_merges": True}}, "its ignore_merges is true"),
        ({"model": SWAPPED}, "merge 0 does not make token 256"),
        ({"model": {**SWAPPED, "vocab": {**SWAPPED["vocab"], "~~": 258}}}, "is not 256 bytes and then"),
        ({"model": LONELY}, "token 258 is not itself"),
    ],
)
def test_a_file_whose_merges_might_differ_is_left_to_the_library(
    difference: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = changed(difference)
    with caplog.at_level(logging.WARNING):
        for text in ("abc bc xabcab", "a\u0301" * 5):
            assert tokenizer.encode(text) == by_tokenizers(tokenizer, text)
    assert [reason in record.message for record in caplog.records] == [True]


def test_a_merge_that_its_own_bytes_never_reach_would_differ() -> None:
    """Why such a file is refused: the lowest id joins `a` and `bc`, which no merge does."""
    ranks = {bytes(map(BPE._bytes.__getitem__, token)): index for token, index in LONELY["vocab"].items()}
    assert Encoding("x", pat_str=bpe.SPLIT, mergeable_ranks=ranks, special_tokens={}).encode_ordinary("abc") == [258]
    assert changed({"model": LONELY}).encode("abc") == [A, 256]


@pytest.mark.parametrize("kind", [r"\p{L}", r"\p{N}", r"\s"])
def test_both_libraries_have_the_same_letters_digits_and_spaces(kind: str) -> None:
    """Of all code points in planes that have any: else a text with one would be split otherwise."""
    planes = [*range(0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE1000)]
    text = "".join(map(chr, planes))
    expected = normalizers.Replace(Regex(f"[^{kind}]"), "").normalize_str(text)
    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = Encoding("kind", pat_str=kind, mergeable_ranks=ranks, special_tokens={})
    assert bytes(encoding.encode_ordinary(text)).decode() == expected


@pytest.mark.parametrize("text", ["a" * (1 << 20), " " * 1_000_001 + "x", "\r\n" * 9, "<|none|>", ""])
def test_runs_without_end_have_the_ids_of_the_library(text: str) -> None:
    assert BPE.encode(text) == by_tokenizers(BPE, text)


FOREIGN = changed({"model": {"ignore_merges": True}})


@given(st.text(alphabet="ab 1.'\n\té", max_size=120))
@settings(max_examples=200, deadline=None)
def test_threads_of_the_library_give_the_tokens_of_one_piece(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "PIECE", 5)
        assert "".join(bpe._between_words(text)) == text
        assert FOREIGN.encode(text) == by_tokenizers(FOREIGN, text)
