"""Retraining is skipped only when neither files nor configuration changed since the last one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.config import config_hash
from factory.drift import SKIP, TRAIN, Trained, check, decide, listing, remember

CONFIG = {"model": {"channels": [8]}, "train": {"seed": 0}}
FILES = {"a.npz": "1", "b.npz": "2"}


def last(files: dict[str, str] = FILES, config: dict[str, Any] = CONFIG) -> dict[str, Any]:
    return {"created": "monday", "fingerprint": config_hash(files), "config_hash": config_hash(config), "files": files}


@pytest.mark.parametrize(
    ("files", "config", "before", "champion", "decision", "words"),
    [
        (FILES, CONFIG, None, True, TRAIN, "nothing was trained"),
        (FILES, CONFIG, last(), False, TRAIN, "no model is in service"),
        (FILES, CONFIG, last(), True, SKIP, "the 2 files and the configuration are those of monday"),
        ({**FILES, "c.npz": "3"}, CONFIG, last(), True, TRAIN, "1 files added, 0 removed, 0 changed since monday"),
        ({"a.npz": "9"}, CONFIG, last(), True, TRAIN, "0 files added, 1 removed, 1 changed"),
        (FILES, {"train": {"seed": 1}}, last(), True, TRAIN, "the configuration is not the one of monday"),
        ({"x": "1"}, CONFIG, {**last(), "files": 20_000}, True, TRAIN, "the files are not those of monday"),
    ],
)
def test_decision_and_reason(files, config, before, champion, decision, words):  # type: ignore[no-untyped-def]
    known = Trained.model_validate(before) if before else None
    decided, reason = decide(files, config, known, champion=champion)
    assert decided == decision
    assert words in reason


def test_listing_sees_content_not_time(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "a.txt"
    file.write_text("one")
    before = listing(str(tmp_path))
    file.write_text("one")
    assert listing(str(tmp_path)) == before
    file.write_text("two")
    assert listing(str(tmp_path)) != before
    assert list(before) == ["sub/a.txt"]
    assert listing(None) == {}


def test_what_is_remembered_is_recognised(tmp_path: Path) -> None:
    data, registry = tmp_path / "data", str(tmp_path / "registry")
    data.mkdir()
    (data / "a.txt").write_text("one")
    found = check({"data_dir": str(data)}, CONFIG, registry, "digits")
    assert found["decision"] == TRAIN
    remember(found, "monday", registry, "digits")
    again = check({"data_dir": str(data)}, CONFIG, registry, "digits")
    assert (again["decision"], again["reason"]) == (TRAIN, "no model is in service")
    assert again["fingerprint"] == found["fingerprint"]
