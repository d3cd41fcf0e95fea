"""Each number of steps has a row beside real text and the autoregressive model inside."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import text_steps
from core.text import data
from core.text.autoregressive import unigram_log_probs
from core.text.config import TextData
from core.text.denoiser import Diffusion
from core.text.model import save_model
from tests.core.text.conftest import MODEL, TEXT


def test_rows_are_of_each_number_of_steps_and_tilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text(TEXT)
    source = {"source": "file", "data_dir": str(tmp_path / "in.txt"), "tokenizer": {"kind": "bpe", "vocabulary": 300}}
    data.prepare(TextData.model_validate(source), tmp_path / "dataset")
    texts = data.load(tmp_path / "dataset")
    torch.manual_seed(0)
    size = texts.tokenizer.size
    network = Diffusion(size, MODEL, unigram_log_probs(texts.tokens["train"], size))
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", network, "diffusion", MODEL, texts.tokenizer, {})
    places = [f"--{name}={tmp_path / name}" for name in ("model", "dataset", "out")]
    few = ["--steps=2,4", "--tilts=1,2", "--count=2", "--windows=2"]
    monkeypatch.setattr("sys.argv", ["text_steps", *places, *few])
    text_steps.main()
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| ")]
    assert [(row[0], row[2], row[3]) for row in rows[2:]] == [
        ("real text", "-", "-"),
        ("autoregressive inside", "-", "1"),
        *((f"diffusion, {steps} steps", "mixture", f"{steps / 4:g}") for _ in range(2) for steps in (2, 4)),
    ]
    assert rows[0][-1] == "bits/char"
    assert all(float(row[-1]) > 1 for row in rows[3:])
