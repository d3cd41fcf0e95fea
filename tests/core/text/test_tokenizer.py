"""Tokenizers lose nothing, and say so where they cannot help it."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import storage
from core.errors import UserError
from core.text import tokenizer as tokenizers
from core.text.config import TokenizerConfig

pieces = tokenizers._pieces
TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n" * 30
BPE = tokenizers.train_tokenizer(TEXT, TokenizerConfig(kind="bpe", vocabulary=300))
assert isinstance(BPE, tokenizers.BPETokenizer)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_bpe_round_trips_every_byte_sequence(data: bytes) -> None:
    ids = BPE.encode_bytes(data)
    assert BPE.decode_bytes(ids) == data
    assert all(0 <= index < BPE.size for index in ids)


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_bpe_round_trips_every_text(text: str) -> None:
    ids = BPE.encode(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # lone surrogates are no text; bytes are covered above
    assert BPE.decode(ids) == text


def test_bpe_has_its_vocabulary_and_shortens_text() -> None:
    assert BPE.size == 300
    assert len(BPE.encode(TEXT)) < len(TEXT) / 1.3


@given(st.text(alphabet=sorted(set(TEXT)), max_size=200))
@settings(deadline=None)
def test_characters_round_trip(text: str) -> None:
    tokenizer = tokenizers.train_tokenizer(TEXT, TokenizerConfig(kind="characters"))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.size == len(set(TEXT))


def test_merges_of_text_without_spaces_are_learned_from_pieces() -> None:
    """9 s for 100,000 characters in one piece, by their square; nothing is lost where it is cut."""
    letters = np.random.default_rng(0).choice(list("acgt"), 200_000)
    text = "".join(letters) + " " * 3000 + "end of a line\n"
    assert "".join(pieces(text)) == text
    assert max(len(run) for piece in pieces(text) for run in re.findall(r"\S+|\s+", piece)) <= tokenizers.LONGEST_RUN
    tokenizer = tokenizers.train_tokenizer(text, TokenizerConfig(kind="bpe", vocabulary=300))
    assert len(tokenizer.encode(text)) < len(text) / 1.5


def test_lines_with_spaces_are_learned_from_as_they_are() -> None:
    text = TEXT + TEXT.replace("\n", " ") + "\nand\x0cmore\u2028of it"
    *lines, last = text.split("\n")
    assert list(pieces(text)) == [*(f"{line}\n" for line in lines), last]


@given(st.text(alphabet="ab 1.'\n\t\u3000é", max_size=120))
@settings(max_examples=300, deadline=None)
def test_a_long_text_has_the_tokens_of_one_piece(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizers, "BLOCK", 7)
        ids = [index for block in tokenizers.encode_blocks(BPE, text) for index in block.tolist()]
        runs = re.findall(r"[^ \n]+", text)
        if all(len(run) < 7 for run in runs) and not re.search(r"\s{2}", text):
            assert ids == BPE.encode(text)
        assert BPE.decode(ids) == text


@given(st.text(alphabet="ab 1.'\n\té", max_size=120))
@settings(max_examples=200, deadline=None)
def test_threads_give_the_tokens_of_one_piece(text: str) -> None:
    whole = BPE.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizers, "PIECE", 5)
        assert "".join(tokenizers._between_words(text)) == text
        assert BPE.encode(text) == whole


def test_a_character_outside_the_vocabulary_is_named() -> None:
    tokenizer = tokenizers.train_tokenizer("abc", TokenizerConfig(kind="characters"))
    with pytest.raises(UserError, match=r"outside the vocabulary: found 'é' at character 2"):
        tokenizer.encode("abé")


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_a_saved_tokenizer_is_the_same_tokenizer(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizers.train_tokenizer(TEXT, TokenizerConfig.model_validate({"kind": kind, "vocabulary": 300}))
    storage.write_json(tmp_path / "tokenizer.json", tokenizer.to_json())
    loaded = tokenizers.load(tmp_path / "tokenizer.json")
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT)
    assert loaded.size == tokenizer.size


@pytest.mark.parametrize("value", [{}, [], {"kind": "words"}, {"kind": "bpe", "tokenizer": {"model": 3}}])
def test_a_file_that_is_no_tokenizer_is_refused_in_one_line(value: object, tmp_path: Path) -> None:
    storage.write_json(tmp_path / "t.json", value)
    with pytest.raises(UserError, match=r"t\.json"):
        tokenizers.load(tmp_path / "t.json")


def test_a_tokenizer_at_which_the_library_panics_is_refused_in_one_line(tmp_path: Path) -> None:
    """A merge that makes a longer token than any in the vocabulary; found by `make fuzz`."""
    saved = tokenizers.train_tokenizer(TEXT, TokenizerConfig(kind="bpe", vocabulary=300)).to_json()
    vocabulary = saved["tokenizer"]["model"]["vocab"]
    longest = max(len(token.encode()) for token in vocabulary)
    for number, token in enumerate([token for token in vocabulary if len(token.encode()) == longest]):
        vocabulary[f"~{number}"] = vocabulary.pop(token)
    storage.write_json(tmp_path / "t.json", saved)
    with pytest.raises(UserError, match=r"t\.json: not a tokenizer: PanicException"):
        tokenizers.load(tmp_path / "t.json")
