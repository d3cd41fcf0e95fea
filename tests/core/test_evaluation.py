"""What steps leave for others to read: typed, one schema for both modalities; what older versions wrote is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.evaluation import Decision, Evaluation, Sampling, Verdict, read_metrics
from core.metrics import Definition, find, finite, table

OLD_TEXT = {  # as it was written before both modalities had one schema
    "evaluation.json": {
        "modality": "text",
        "key": "26c4ca0bf7036e7f",
        "frontier": [{"mode": "diffusion", "temperature": 0.7, "entropy": 3.0, "judge_nll": 2.5, "n": 210}],
        "copies": {"longest_copy": {"value": 11.0, "floor": 56.0, "n": 169, "judge": None, "better": "lower"}},
        "gamma_bins": [{"gamma": -3.0, "loss": 0.1, "no_context": 0.2}],
        "fusion": [{"span": 8, "alpha": [0.0, 1.0], "w": [0.0, 1.0], "nats_alpha": [2.0, 1.5], "nats_w": [2.0, 1.6],
                    "characters": 24, "seed": 0, "examples": []}],
        "sample": {"steps": 3, "temperature": 1.0},
        "sampling": {"nfe": 12, "seconds": 7.59},
    },
    "metrics.json": {"judge_nll": {"value": 2.11, "floor": 1.66, "n": 64, "judge": "ab", "better": "lower"}},
    "sample.json": {"sampler": "ddpm", "steps": 3, "block": 4, "nfe": 12, "settings": {"steps": 3, "temperature": 1.0}},
}  # fmt: skip
OLD_IMAGES = {
    "evaluation.json": {
        "sample": {"sampler": "dpmpp", "steps": 18, "nfe": 18, "guidance": 1.0, "autoguidance": 1.0, "seed": 0,
                   "count": 400},
        "count": 400,
        "class_names": ["0", "1"],
        "per_class_accuracy": [0.9, None],
        "class_accuracy_interval": [0.8, 0.95],
        "confusion": [[9, 1], [0, 0]],
        "class_histogram": {"samples": [9, 1], "real": [5, 5]},
        "mean_confidence": {"samples": 0.9, "real": 0.95},
        "validation_loss": None,
        "judge": {"sha256": "ab", "accuracy": 0.98, "n": 360, "interval": [0.97, 0.99]},
        "evaluation_key": "cd",
    },
    "metrics.json": {"frechet_distance": {"value": 2.3, "sd": 0.1, "floor": 1.4, "n": 400, "judge": "ab",
                                          "better": "lower", "text": "Fewer samples than features."}},
    "sample.json": {"sampler": "dpmpp", "steps": 18, "nfe": 18, "guidance": 1.0, "autoguidance": 1.0, "seed": 0,
                    "count": 400, "seconds": 17.1},
}  # fmt: skip


def written(files: dict[str, Any], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def test_an_older_evaluation_of_texts_is_read(tmp_path: Path) -> None:
    found = Evaluation.read(written(OLD_TEXT, tmp_path))
    assert (found.modality, found.evaluation_key) == ("text", "26c4ca0bf7036e7f")
    assert found.metrics["judge_nll"].value == 2.11
    assert (found.frontier[0].judge_nll, found.fusion[0].nats_w, found.gamma_bins[0].no_context) == (2.5, [2, 1.6], 0.2)


def test_an_older_evaluation_of_images_is_read(tmp_path: Path) -> None:
    found = Evaluation.read(written(OLD_IMAGES, tmp_path))
    assert (found.modality, found.evaluation_key, found.confusion) == ("images", "cd", [[9, 1], [0, 0]])
    assert found.judge is not None
    assert (found.judge.accuracy, found.per_class_accuracy) == (0.98, [0.9, None])
    assert found.metrics["frechet_distance"].sd == 0.1


def test_samples_without_settings_are_drawn_by_the_facts_that_older_files_state(tmp_path: Path) -> None:
    assert Sampling.read(written(OLD_IMAGES, tmp_path)).terms() == OLD_IMAGES["evaluation.json"]["sample"]
    assert Sampling.read(written(OLD_TEXT, tmp_path)).terms() == {"steps": 3, "temperature": 1.0}


@pytest.mark.parametrize("files", [OLD_TEXT, OLD_IMAGES])
def test_what_is_written_is_what_was_read_and_older_readers_find_their_keys(files: Any, tmp_path: Path) -> None:
    found = Evaluation.read(written(files, tmp_path))
    found.write(tmp_path)
    assert Evaluation.read(tmp_path) == found
    again = json.loads((tmp_path / "evaluation.json").read_text())
    dropped = {"copies", "sampling", "key"}
    assert {name: again[name] for name in files["evaluation.json"] if name not in dropped} == {
        name: value for name, value in files["evaluation.json"].items() if name not in dropped
    }
    assert again["evaluation_key"] == found.evaluation_key
    assert json.loads((tmp_path / "metrics.json").read_text()) == files["metrics.json"]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("metrics.json", [], "metrics.json: expected metrics by name, found []"),
        ("metrics.json", {"a": {"n": "many"}}, "metrics.json: a: n"),
        ("evaluation.json", 3, "evaluation.json: expected facts by name, found 3"),
        ("evaluation.json", {"confusion": "none"}, "evaluation.json: confusion"),
    ],
)
def test_a_damaged_evaluation_is_named_with_its_key(name: str, content: Any, named: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        Evaluation.read(written({**OLD_IMAGES, name: content}, tmp_path))
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "0.1", True, [0.1], 10**400])
def test_what_is_not_a_finite_number_is_no_value(value: Any) -> None:
    assert finite(value) is None
    assert read_metrics({"a": {"value": value}}, "metrics.json")["a"].value is None


def test_a_verdict_is_read_as_it_was_written_and_has_one_of_two_words(tmp_path: Path) -> None:
    verdict = Verdict(decision=Decision.KEEP, reason="no improvement")
    verdict.write(tmp_path)
    assert json.loads((tmp_path / "verdict.json").read_text()) == {
        "decision": "keep", "reason": "no improvement", "champion": None
    }  # fmt: skip
    assert Verdict.read(tmp_path) == verdict
    (tmp_path / "verdict.json").write_text('{"decision": "accepted", "reason": ""}')
    with pytest.raises(UserError, match="decision"):
        Verdict.read(tmp_path)


def test_a_name_is_looked_up_exactly_or_with_a_variant_that_its_definition_allows() -> None:
    speed, size = Definition("speed", "Speed", "How fast.", variants="up|down"), Definition("size", "Size", "How big.")
    glossary = table([speed, size])
    assert find(glossary, "speed") == (speed, "")
    assert find(glossary, "speed_up") == (speed, "up")
    assert [find(glossary, name) for name in ("speed_over", "size_up", "my_size", "speedy")] == [None] * 4
