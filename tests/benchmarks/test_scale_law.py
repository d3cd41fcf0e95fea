"""What plan is fitted to is what the trainings were, and a run that was cut off goes on."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale_law
from benchmarks.fair_tasks import JUDGES
from core import storage
from factory.plan import Table, offers
from tests.benchmarks.answers import answered


def found(modality: str = "images") -> dict[str, Any]:
    """Distances of 0.1 + 3000 / n, the first below it, losses of 0.1 + n^-0.5, bits of 2 + n^-0.5, n examples."""
    trainings = [
        {
            "network": "8-16",
            "asked": asked,
            "examples": asked + 16,
            "seed": 0,
            "parameters": 100,
            "seconds": asked / 50,
        }
        | {"validation loss": 0.1 + (asked + 16) ** -0.5, "bits per character": 2 + (asked + 16) ** -0.5}
        | {"distance": 0.1 + 3000 / (asked + 16) if asked > 1000 else 0.09, "accuracy": 0.9}
        for asked in (1000, 2000, 4000, 8000, 16000)
    ]
    judge = {JUDGES[0]: {"floor": 0.1, "real images in the floor": 20}}
    return {"modality": modality, "source": "rings", "measured on": "this", "trainings": trainings, "errors": {},
            "judges": judge if modality == "images" else {}}  # fmt: skip


def test_curves_are_in_the_form_of_plan_and_say_what_it_measured() -> None:
    loss, distance = scale_law.curves(found())
    assert [point.examples for point in loss.points] == [1016, 2016, 4016, 8016, 16016]
    assert len(distance.points) == 4  # the one below the floor has no logarithm
    speed = {"data": "rings", "network": "8-16", "device": "cpu", "examples_per_second": (50, 50), "source": "here"}
    made = offers(1, "cpu", "rings", known=Table.model_validate({"curves": [loss, distance], "speeds": [speed]}))
    by = {one.metric: one.value for one in made}
    assert by[scale_law.DISTANCE] == pytest.approx(1.0)  # 3,000 examples
    assert by[scale_law.LOSS] == pytest.approx(0.1 + 3000**-0.5, rel=0.01)


def test_laws_and_picture_are_of_every_curve(tmp_path: Path) -> None:
    rows = scale_law.laws(found("text"))
    assert [(row["metric"], row["trainings"]) for row in rows] == [("bits per character", 5)]
    assert rows[0]["b"] == pytest.approx(0.5, abs=0.05)
    scale_law.show(found(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {
        "scale-law-images.md",
        "scale-law-images-trainings.md",
        "scale-law-images-curves.json",
    }


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    settings = {
        "modality": "images",
        "source": None,
        "seeds": 1,
        "only": "16-24",
        "tiny": False,
        "workers": 1,
        "data_dir": None,
    }
    work = tmp_path / "work"
    (work / "dataset").mkdir(parents=True)

    def run(examples: str) -> list[Any]:
        chosen = Namespace(out=tmp_path, work=work, examples=examples, seconds=100, count=2, judge_epochs=1, **settings)
        one = scale_law.Trainings(chosen, work)
        asked = answered(one, lambda key: {"examples": 1})
        one.run()
        return asked

    assert run("1000,2000") == [("judges", JUDGES[0]), ("training", "16-24", 1000, 0), ("training", "16-24", 2000, 0)]
    assert run("1000,2000,64000") == [("training", "16-24", 64000, 0)]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("modality", ["images", "text"])
def test_the_dry_run_goes_through_all_parts(modality: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scale_law", "--modality", modality, "--tiny", "--out", str(tmp_path)])
    scale_law.main()
    result = storage.read_json(tmp_path / f"scale-law-{modality}.json")
    assert not result["errors"]
    names = ["8-16"] if modality == "images" else ["autoregressive 32", "diffusion 32"]
    assert len(result["trainings"]) == 4 * len(names)
    made = storage.read_json(tmp_path / f"scale-law-{modality}-curves.json")
    assert {curve["network"] for curve in made} == set(names)
