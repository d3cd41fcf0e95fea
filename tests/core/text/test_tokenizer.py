"""Tokenizers lose nothing, and say so where they cannot help it."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import storage
from core.errors import UserError
from core.text import tokenizer as tokenizers
from core.text.config import TokenizerConfig

TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n" * 30
BPE = tokenizers.train_tokenizer(TEXT, TokenizerConfig(kind="bpe", vocabulary=300))
assert isinstance(BPE, tokenizers.BPETokenizer)


@given(st.text(alphabet=sorted(set(TEXT)), max_size=200))
@settings(deadline=None)
def test_characters_round_trip(text: str) -> None:
    tokenizer = tokenizers.train_tokenizer(TEXT, TokenizerConfig(kind="characters"))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.size == len(set(TEXT))


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
