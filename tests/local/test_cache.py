"""The cache serves what was written or nothing; run folders are nobody's way into it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components.step import describe
from factory.run_folder import LINKED_BYTES, Run, place_tree
from local.cache import VerifiedCache
from tests.local.conftest import Project

States = Callable[[Run], dict[str, str]]
KEY = "k" * 64


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, said: list[str]) -> VerifiedCache:
    """A cache with one entry, of a step that evaluated."""
    made = VerifiedCache(tmp_path / "cache", said.append)
    folder = tmp_path / "store" / "evaluation"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"distance": {"value": 91.80}}')
    (folder / "evaluation.json").write_text("{}")
    (tmp_path / "store" / "metrics").write_text("{}")
    evaluation = dsl.Artifact(name="evaluation", uri=str(folder), metadata={})
    describe(evaluation, {}, {})
    shown = dsl.Metrics(name="metrics", uri=str(tmp_path / "store" / "metrics"), metadata={"distance": 91.8})
    made.put(KEY, {"evaluation": evaluation, "metrics": shown, "Output": "promote"})
    return made


def test_what_was_written_is_served(cache: VerifiedCache, said: list[str]) -> None:
    found = cache.get(KEY)
    assert found is not None
    assert (found["Output"], found["metrics"].metadata) == ("promote", {"distance": 91.8})
    assert isinstance(found["metrics"], dsl.Metrics)
    assert (cache.get("other"), said) == (None, [])


def _change(path: Path) -> None:
    path.write_text(path.read_text().replace("91.80", "11.80").replace("promote", "keep").replace("{}", "{ }"))


@pytest.mark.parametrize("damage", [_change, Path.unlink])
@pytest.mark.parametrize("name", ["store/evaluation/metrics.json", "store/evaluation/evaluation.json", "store/metrics"])
def test_a_changed_or_missing_file_is_not_served_and_said_in_one_line(
    cache: VerifiedCache, said: list[str], tmp_path: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    damage(tmp_path / name)
    assert cache.get(KEY) is None
    assert len(said) == 1
    assert "\n" not in said[0]


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"outputs": 3}', '{"outputs": {}, "own_sha256": "0"}'])
def test_a_damaged_entry_is_not_served(cache: VerifiedCache, said: list[str], tmp_path: Path, text: str | None) -> None:
    entry = tmp_path / "cache" / f"{KEY}.json"
    if text is None:
        _change(entry)
    else:
        entry.write_text(text)
    assert cache.get(KEY) is None
    assert len(said) == 1


def test_editing_a_runs_files_leaves_the_store_as_it_is(tmp_path: Path) -> None:
    store, run = tmp_path / ".store", tmp_path / "run"
    for place in (store / "a", tmp_path / "elsewhere"):
        place.mkdir(parents=True)
        (place / "metrics.json").write_text("91.80")
        (place / "weights").write_bytes(b"w" * (LINKED_BYTES + 1))
        place_tree(place, run / place.name, store)
    for copied in (run / "a" / "metrics.json", run / "elsewhere" / "metrics.json", run / "elsewhere" / "weights"):
        with copied.open("r+b") as stream:  # in place, as some editors write
            stream.write(b"11.80")
    assert (store / "a" / "metrics.json").read_text() == "91.80"
    assert (tmp_path / "elsewhere" / "metrics.json").read_text() == "91.80"
    assert (tmp_path / "elsewhere" / "weights").read_bytes()[:1] == b"w"
    assert (run / "a" / "weights").stat().st_mode & 0o222 == 0
    assert os.access(tmp_path / "elsewhere" / "weights", os.W_OK)


def test_a_cached_evaluation_with_another_digit_promotes_nothing_and_lost_samples_are_drawn_again(
    project: Project, states: States
) -> None:
    project.run("train.learning_rate=0.01")
    worse = project.run("train.learning_rate=0.005")
    assert states(worse)["keep"] == "succeeded"
    stored = Path(worse.artifacts()["evaluation"]["uri"]) / "metrics.json"
    value = worse.metrics()["frechet_distance"]["value"]
    stored.write_text(stored.read_text().replace(str(value), "11.8"))  # better than the champion's 100.25
    (worse.folder / "steps" / "train" / "model.json").write_text("edited in the run folder")
    again = project.run("train.learning_rate=0.005")
    assert (states(again)["evaluate"], states(again)["train"]) == ("succeeded", "cached")
    assert again.metrics()["frechet_distance"]["value"] == value
    assert (states(again)["register"], states(again)["keep"]) == ("skipped", "succeeded")
    assert [entry["event"] for entry in project.json("models", "tiny")["history"]] == ["promote", "keep", "keep"]

    shutil.rmtree(again.artifacts()["samples"]["uri"])
    record = again.folder / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "status": "failed"}))
    resumed = project.here("run", "tiny.yaml", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    healed = project.latest()
    assert (healed.id, states(healed)["sample"], states(healed)["train"]) == (again.id, "succeeded", "cached")
    (Path(healed.artifacts()["samples"]["uri"]) / "sample.json").unlink()
    assert states(project.run("train.learning_rate=0.005"))["sample"] == "succeeded"
