"""What the comparison says is what its trainings were, and settings are those of the lowest loss on validation."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fair, peers, second_judge
from benchmarks.fair_tasks import JUDGES
from core import storage
from core.images import judge
from core.images.config import ImageEvaluate
from core.images.dataset import ImageDataset
from core.training.result import InterruptedTrainingError
from tests.benchmarks.answers import answered
from tests.core.asked import Steps

steps = Steps("images")


def comparison(place: Path, **changes: Any) -> fair.Images:
    settings = {"only": "ours,diffusers", "batches": "64,256", "seeds": 3, "workers": 1, "seconds": 100, "tiny": False}
    given = {"work": None, "count": 20, "judge_epochs": 1, "select": 64, **settings, **changes}
    chosen = Namespace(out=place, **given)
    return fair.Images(chosen, place)


def test_learning_rate_and_batch_are_those_of_the_lowest_loss_on_validation(tmp_path: Path) -> None:
    one = comparison(tmp_path)
    asked = answered(
        one,
        lambda key: {"loss": abs(key[2] - 0.04) + key[3]} if key[:2] == ("short", "ours") else {},
    )
    one.select()
    assert sum(key[0] == "short" for key in asked) == 2 * 4 * 2
    assert one.found["chosen"]["ours"] == {"learning rate": 0.04, "batch": 64, "of": 8}
    assert one.found["chosen"]["diffusers"]["learning rate"] == 2e-3  # of a run that was cut off before it
    assert storage.read_json(tmp_path / "fair.json")["short runs"]


def test_a_run_goes_on_with_what_one_before_it_noted(tmp_path: Path) -> None:
    first = comparison(tmp_path, work=tmp_path)
    seen = answered(first, lambda key: {"loss": 1.0} if key[0] != "short" or key[2] < 0.03 else None)
    first.select()
    second = comparison(tmp_path, work=tmp_path, only="ours", seconds=50)
    again = answered(second, lambda key: {"loss": 0.5})
    second.select()
    assert ("judges", JUDGES[0]) in seen
    assert again == [("short", "ours", rate, batch) for rate in (0.04, 0.08) for batch in (64, 256)]
    assert second.found["chosen"].keys() == {"ours", "diffusers"}
    assert second.found["chosen"]["ours"]["learning rate"] == 0.04
    third = comparison(tmp_path)  # nobody kept its judges
    assert not third.found["short runs"]


def test_a_run_does_not_go_on_with_one_by_other_rules(tmp_path: Path) -> None:
    first = comparison(tmp_path, work=tmp_path)
    answered(first, lambda key: {"loss": 1.0})
    first.select()
    with pytest.raises(SystemExit, match=r"fair\.json has select: 64, not 128; choose another --out"):
        comparison(tmp_path, work=tmp_path, select=128)


def test_a_signal_ends_it_and_is_nobodys_error(tmp_path: Path) -> None:
    one = comparison(tmp_path)
    answered(one, lambda key: InterruptedTrainingError("train: stopped by signal at 64 examples"))
    with pytest.raises(SystemExit, match="stopped by a signal"):
        one.select()
    assert one.found["errors"] == {}


def test_everyone_has_a_first_training_before_anyone_has_a_second(tmp_path: Path) -> None:
    one = comparison(tmp_path)
    one.found["chosen"] = {name: {"learning rate": 1.0, "batch": 64} for name in ("ours", "diffusers")}
    asked = answered(one, lambda key: {"examples": 64})
    one.train("equal examples", {"ours": 64, "diffusers": 64})
    assert asked == [("training", "equal examples", name, seed) for seed in range(3) for name in ("ours", "diffusers")]
    assert [run["seed"] for run in one.found["trainings"]] == [0, 0, 1, 1, 2, 2]


def test_an_error_is_noted_and_the_others_go_on(tmp_path: Path) -> None:
    one = comparison(tmp_path)
    one.found["chosen"] = {name: {"learning rate": 1.0, "batch": 64} for name in ("ours", "diffusers")}
    answered(one, lambda key: ValueError("no memory") if key[2] == "ours" else {"examples": 64})
    one.train("equal examples", {"ours": 64, "diffusers": 64})
    written = storage.read_json(tmp_path / "fair.json")
    assert {run["contender"] for run in written["trainings"]} == {"diffusers"}
    assert written["errors"]["('training', 'equal examples', 'ours', 1)"] == "ValueError: no memory"


def test_a_table_has_means_and_deviations_of_its_own_trainings() -> None:
    def run(table: str, seed: int, distance: float) -> dict[str, Any]:
        verdicts = {which: {"distance": distance, "accuracy": 0.9 + distance / 100} for which in JUDGES}
        return {"table": table, "contender": "ours", "seed": seed, "examples": 64, "guidance": 1.2,
                "evaluations": 51, **verdicts}  # fmt: skip

    found = {
        "chosen": {"ours": {"learning rate": 0.02, "batch": 64}, "diffusers": {"learning rate": 1e-3, "batch": 64}},
        "costs": {},
        "trainings": [*(run("equal", seed, seed + 1.0) for seed in range(3)), run("other", 0, 50.0)],
    }
    (row,) = fair.table(found, "equal")
    assert row[f"Fréchet, {JUDGES[0]}"] == "2 ± 1"
    assert row[f"class, {JUDGES[1]}"] == "92 ± 1 %"
    assert (row["trainings"], fair.table(found, "other")[0][f"Fréchet, {JUDGES[0]}"]) == (3, "50")


def test_contenders_have_names_of_their_own_and_four_rates() -> None:
    field = peers.fair()
    assert len({one.name for one in field}) == len(field)
    assert all(len(one.rates) == len(one.guidances) == 4 and "," not in one.name for one in field)
    assert all(one.evaluations(1.0) < one.evaluations(one.guidances[0]) for one in field)


def test_the_second_judge_is_another_network_and_comes_back_as_it_was(tmp_path: Path) -> None:
    steps.prepare_data({"source": "digits", "limit": 200}, tmp_path / "dataset")
    second_judge.train(tmp_path / "dataset", tmp_path / "second", 1)
    second = second_judge.load(tmp_path / "dataset", tmp_path / "second")
    data = ImageDataset.open(tmp_path / "dataset")
    features = second.examine(data.images("train")).features
    assert features.mean(0) == pytest.approx(0, abs=1e-3)
    assert features.std(0) == pytest.approx(1, abs=1e-2)
    judge.train(ImageEvaluate(judge_epochs=0.1), tmp_path / "dataset", tmp_path / "first")
    first = judge.Judge.open(tmp_path / "first")
    assert {name for name, _ in first.network.named_parameters()} != {
        name for name, _ in second.network.named_parameters()
    }


@pytest.mark.slow
def test_the_dry_run_goes_through_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fair", "--tiny", "--out", str(tmp_path)])
    fair.main()
    found = storage.read_json(tmp_path / "fair.json")
    assert not found["errors"]
    assert {(run["table"], run["contender"], run["seed"]) for run in found["trainings"]} == {
        (table, name, seed)
        for table in ("equal examples", "0.2 s each")
        for name in ("ours", "diffusers")
        for seed in (0, 1)
    }
    assert (tmp_path / "fair.png").exists()
    assert (tmp_path / "fair-1.md").exists()
