"""What the comparison of text says is what its trainings were, on the same windows and seeds."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import fair_text, fair_text_tasks
from core import storage
from tests.benchmarks.answers import answered


def run(name: str, seed: int, windows: list[float], **more: Any) -> dict[str, Any]:
    bits = [{"evaluations": 1.0, "exact": name == "autoregressive", "windows": windows}]
    return {"contender": name, "seed": seed, "bits": bits, "samples": [], "infill": {}, "best at": 8, "examples": 10,
            "training, s": 1.0, **more}  # fmt: skip


def found(*runs: dict[str, Any]) -> dict[str, Any]:
    names = dict.fromkeys(one["contender"] for one in runs)
    judge = {
        "windows": [100, 100, 100],
        "test text": {"entropy": 3.0, "n-gram judge": 1, "second judge": 1, "words": 1},
    }
    return {"trainings": list(runs), "chosen": {name: {"learning rate": 0.02} for name in names}, "judge": judge}


def test_learning_rates_are_those_of_the_lowest_loss_and_the_first_seed_comes_first(tmp_path: Path) -> None:
    settings = {"tiny": False, "workers": 1, "only": "autoregressive,ours", "seeds": 2, "examples": 100, "select": 8}
    chosen = Namespace(out=tmp_path, work=None, seconds=100, judge=8, count=2, **settings)
    one = fair_text.Texts(chosen, tmp_path)
    asked = answered(one, lambda key: {"loss": abs(key[2] - 0.04) if key[0] == "short" else 0.0})
    one.prepare = lambda: None  # type: ignore[method-assign]
    one.run()
    assert one.found["chosen"]["ours"] == {"learning rate": 0.04, "of": 3}
    assert asked[-4:] == [("training", name, seed) for seed in (0, 1) for name in ("autoregressive", "ours")]
    first_short_of_ours = asked.index(("short", "ours", 0.01))
    assert asked.index(("starts", "1")) < first_short_of_ours  # which begins with such a start
    assert storage.read_json(tmp_path / "fair-text.json")["trainings"]


def test_differences_are_of_the_same_windows_and_seed() -> None:
    runs = [run("autoregressive", seed, [200.0 + seed, 300.0, 100.0]) for seed in (0, 1)]
    runs += [run("ours", seed, [230.0 + seed, 330.0, 130.0]) for seed in (0, 1)]
    runs.append(run("ours", 2, [9e9, 9e9, 9e9]))  # whose twin was cut off
    own, ours = fair_text.bits_table(found(*runs))
    assert own["bits/char"] == "2 ± 0.0024"
    assert (own["more than autoregressive"], ours["more than autoregressive"]) == (None, "+0.300 ± 0.000")
    assert (ours["trainings"], ours["best at"]) == (3, "80%, 80%, 80%")


def test_the_autoregressive_model_is_read_at_equal_entropy_and_never_beyond_its_temperatures() -> None:
    twin = [{"entropy": entropy, "second judge": nats} for entropy, nats in ((3.0, 1.0), (4.0, 2.0), (3.5, 1.2))]
    assert fair_text.at_entropy(twin, 3.25) == pytest.approx(1.1)
    assert fair_text.at_entropy(twin, 3.75) == pytest.approx(1.6)
    assert fair_text.at_entropy(twin, 4.1) is None
    assert fair_text.at_entropy([], 3) is None


def test_gaps_are_compared_with_reranked_drafts_of_the_same_seed() -> None:
    def gaps(ways: dict[str, list[float]]) -> dict[str, Any]:
        return {"infill": {"8": {"characters": [8, 8], "ways": ways}}}

    drafts = gaps({"reads on": [16.0, 18.0], "drafts reranked": [12.0, 14.0]})
    rows = fair_text.infill_table(
        found(
            run("autoregressive", 0, [1.0] * 3, **drafts), run("ours", 0, [1.0] * 3, **gaps({"diffusion": [8.0, 10.0]}))
        )
    )
    assert [row[""] for row in rows] == [
        "autoregressive: reads on",
        "autoregressive: drafts reranked",
        "ours: diffusion",
    ]
    assert [row["8: more than reranked"] for row in rows] == ["+0.500 ± 0.000", "+0.000 ± 0.000", "-0.500 ± 0.000"]


def test_what_was_trained_is_measured_again_without_training_unless_it_is_asked_for_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, asked = fair_text_tasks.contender("autoregressive"), []

    def trained(place: Path, one: Any, rate: float, *rest: Any) -> tuple[nn.Module, dict[str, Any]]:
        asked.append(rate)
        torch.manual_seed(0)
        return nn.Linear(2, 2), {"loss": rate}

    monkeypatch.setattr(fair_text_tasks, "_trained", trained)
    monkeypatch.setattr(fair_text_tasks, "_objective", lambda *_: Namespace(model=nn.Linear(2, 2)))
    first, again, other = (
        fair_text_tasks._kept(tmp_path, one, rate, 0, 8, fair_text.TINY_SIZES) for rate in (0.5, 0.5, 0.25)
    )
    assert asked == [0.5, 0.25]
    assert first[1] == again[1] == {"loss": 0.5} != other[1]
    assert torch.equal(first[0].weight, again[0].weight)  # type: ignore[arg-type]


def test_a_run_without_a_training_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fair_text.show({"trainings": [], "errors": {}}, tmp_path)
    assert "no training ended" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_dry_run_goes_through_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fair_text", "--tiny", "--out", str(tmp_path)])
    fair_text.main()
    result = storage.read_json(tmp_path / "fair-text.json")
    assert not result["errors"]
    assert {(one["contender"], one["seed"]) for one in result["trainings"]} == {
        (one.name, seed) for one in fair_text_tasks.FIELD for seed in (0, 1)
    }
    assert all((tmp_path / f"fair-text{part}.md").exists() for part in ("", "-samples", "-infill"))
