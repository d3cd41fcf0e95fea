"""A tiny text, its data set, and tiny models with weights that are not zero anywhere."""

from pathlib import Path

import pytest
import torch

from core.text import data
from core.text.autoregressive import unigram_log_probs
from core.text.config import TextData, TextModel
from core.text.data import TextSet
from core.text.denoiser import Diffusion

TEXT = "".join(
    f"{name} said that the {thing} was {kind}.\n"
    for i in range(40)
    for name in ("Anna", "Ben", "Clara")
    for thing, kind in (("house", "old"), ("river", f"cold on day {i}"), ("moon", "round"))
)
MODEL = TextModel.model_validate(
    {
        "context": 16,
        "transformer": {"width": 32, "depth": 2, "heads": 2},
        "process": {"embedding": 16, "blocks": [4, 8], "lanes": [1, 2], "tilt": [0, 2], "next_evidence": True},
    }
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the prepared data set."""
    place = tmp_path_factory.mktemp("text")
    (place / "in.txt").write_text(TEXT)
    config = {"source": "file", "data_dir": str(place / "in.txt"), "tokenizer": {"kind": "bpe", "vocabulary": 300}}
    data.prepare(TextData.model_validate(config), place / "dataset")
    return place / "dataset"


@pytest.fixture(scope="session")
def texts(folder: Path) -> TextSet:
    return data.load(folder)


def shake(model: torch.nn.Module) -> torch.nn.Module:
    """Random weights everywhere: zero-initialised projections would hide every mistake."""
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def model(texts: TextSet) -> Diffusion:
    torch.manual_seed(0)
    size = texts.tokenizer.size
    found = shake(Diffusion(size, MODEL, unigram_log_probs(texts.tokens["train"], size)))
    assert isinstance(found, Diffusion)
    return found
