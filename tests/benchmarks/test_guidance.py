"""Classes against likeness: every way is drawn of every model and judged twice, and can be shown again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import guidance
from tests.core.asked import Steps

MODEL = {"network": {"name": "unet", "channels": [8, 16], "blocks": [1, 1]}}
TRAIN = {"examples": 256, "batch_size": 64, "warmup_examples": 64, "guide_at": 0.5}


def test_ways_of_models_are_judged_twice_and_shown_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = Steps("images")
    steps.prepare_data({"source": "digits"}, tmp_path / "dataset")
    models = [tmp_path / f"model-{seed}" for seed in (0, 1)]
    for seed, model in enumerate(models):
        steps.train(MODEL, {**TRAIN, "seed": seed}, tmp_path / "dataset", model, work=str(tmp_path / f"work-{seed}"))
    arguments = ["--models", ",".join(map(str, models)), "--job", "digits", "--source", "digits", "--count", "20"]
    arguments += ["--judge_epochs", "0.3", "--way", "feedback=0.2,guidance=1.5", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["guidance", *arguments])
    guidance.main()
    first = capsys.readouterr().out
    found = json.loads((tmp_path / "out/guidance.json").read_text("utf-8"))
    assert [(one["way"], one["model"]) for one in found["draws"]] == [
        ("the job's", 0), ("the job's", 1), ("feedback 0.2, guidance 1.5", 0), ("feedback 0.2, guidance 1.5", 1),
    ]  # fmt: skip
    plain, changed = (found["draws"][at]["pipeline's judge"]["distance"] for at in (0, 2))
    assert plain != changed
    assert (tmp_path / "out/guidance.md").read_text("utf-8") in first
    monkeypatch.setattr(
        sys, "argv", ["guidance", "--show", str(tmp_path / "out/guidance.json"), "--out", str(tmp_path)]
    )
    guidance.main()
    assert (tmp_path / "guidance.md").read_text("utf-8") == (tmp_path / "out/guidance.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("way", "said"), [("feedback", "expected NAME=NUMBER"), ("feedback=x", "expected NAME=NUMBER")]
)
def test_a_way_that_cannot_be_read_is_refused(
    way: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["guidance", "--models", "somewhere", "--way", way])
    with pytest.raises(SystemExit) as ended:
        guidance.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
