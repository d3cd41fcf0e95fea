"""A model is measured on text that another tokenizer was made for: by its own tokens, per character."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import IncomparableError
from core.processes.world import SINGLE_PROCESS
from core.storage import integrity, write_json
from core.text import data, held_out
from core.text import tokenizer as tokenizers
from core.text.config import TextData, TextEvaluate, TextSample
from core.text.infilling import held_out_spans
from core.text.model import TrainedText
from core.text.objective import build
from core.text.sampling import Writer
from core.text.terms import equal_terms
from core.text.tokenizer import CharacterTokenizer, Tokenizer
from tests.core.text.conftest import MODEL, TEXT


def test_bits_per_character_are_those_of_the_models_own_tokens(texts: data.TextSet, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(TEXT)
    config = {"source": "file", "data_dir": str(tmp_path / "in.txt"), "tokenizer": {"kind": "characters"}}
    data.prepare(TextData.model_validate(config), tmp_path / "dataset")
    own = data.load(tmp_path / "dataset")
    torch.manual_seed(0)
    trained = TrainedText(build("masked", own.tokenizer.size, MODEL), own.tokenizer, MODEL, {})
    settings = TextEvaluate(bound_windows=4)
    writer = Writer(trained, None, TextSample(), torch.device("cpu"))
    here, there = (
        held_out.measure(writer, one, settings, SINGLE_PROCESS)[0]["bound_bits_per_character"]
        for one in (own, texts.retokenized(own.tokenizer, ("test",)))
    )
    assert there == here
    assert np.mean(there.parts) == pytest.approx(there.value, abs=1e-4)
    assert np.std(there.parts, ddof=1) / len(there.parts) ** 0.5 == pytest.approx(there.se, rel=1e-2)


def test_spans_of_text_in_another_models_tokens_are_as_many_characters(texts: data.TextSet) -> None:
    other = CharacterTokenizer(sorted(set(TEXT)))
    own = texts.retokenized(other, ("test",))
    assert own.characters_per_token == 1
    settings = TextEvaluate(spans=[4], span_count=2)
    assert [len(middle) for _, middle, _ in held_out_spans(MODEL, own, 4, settings)] == [4, 4]


def test_a_tokenizer_that_cannot_write_the_new_text_is_not_comparable(folder: Path, tmp_path: Path) -> None:
    def model(name: str, tokenizer: Tokenizer, context: int = 16) -> Path:
        facts = {"modality": "text", "tokenizer_sha256": tokenizers.sha256(tokenizer.to_json())}
        integrity.write_json(tmp_path / name / "model.json", {**facts, "model": {"context": context}})
        write_json(tmp_path / name / "tokenizer.json", tokenizer.to_json())
        return tmp_path / name

    challenger = model("new", data.load(folder).tokenizer)
    letters = sorted(set(TEXT))
    assert equal_terms(model("old", CharacterTokenizer(letters)), challenger, folder, {"count": 3}) == {"count": 3}
    with pytest.raises(IncomparableError, match=r"characters that the champion does not know: '\.'$"):
        equal_terms(model("few", CharacterTokenizer([one for one in letters if one != "."])), challenger, folder, {})
    with pytest.raises(IncomparableError, match="less than the champion's context of 2048"):
        equal_terms(model("long", CharacterTokenizer(letters), 2048), challenger, folder, {})
