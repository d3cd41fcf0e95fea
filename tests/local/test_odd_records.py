"""Records that another version, another hand or a bad day wrote: one warning line, and the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from factory.registry import Registry
from factory.run_folder import find_run, list_runs
from textdiffusion.cli import app as cli

GOOD = {
    "id": "tiny-1",
    "pipeline": "images-training",
    "job": "tiny",
    "status": "succeeded",
    "created": "2026-01-01T00:00:00+00:00",
    "seconds": 1.5,
    "config": {"train": {"seed": 1}},
    "steps": [
        {"name": "train", "state": "succeeded", "seconds": 1.0, "cached": False, "error": None, "artifacts": {}},
        {
            "name": "sample",
            "state": "succeeded",
            "artifacts": {"samples": {"path": "steps/sample", "uri": "/store/samples", "metadata": {"parents": "{}"}}},
        },
    ],
    "added_by_a_later_version": {"x": 1},
}
DEEP: Any = 1
for _ in range(200):
    DEEP = {"a": DEEP}
ODD: dict[str, Any] = {
    "steps-of-numbers": {**GOOD, "steps": [1]},
    "steps-null": {**GOOD, "steps": None},
    "step-without-state": {**GOOD, "steps": [{"name": "train"}]},
    "artifacts-a-list": {**GOOD, "steps": [{**GOOD["steps"][0], "artifacts": [1]}]},  # type: ignore[index]
    "null": None,
    "list": [],
    "pid": {**GOOD, "status": "running", "pid": 10**30},
    "pid-text": {**GOOD, "status": "running", "pid": "x"},
    "seconds-text": {**GOOD, "seconds": "long"},
    "config-list": {**GOOD, "config": [1]},
    "id-number": {**GOOD, "id": 7},
    "id-long": {**GOOD, "id": "x" * 5000},
    "gate-text": {**GOOD, "gate": "promote"},
    "search-null": {**GOOD, "search": {"metric": None}},
    "deep": {**GOOD, "config": DEEP},
    "huge": {**GOOD, "seconds": 10**400},
    "surrogate": {**GOOD, "job": "\ud800"},
}
BYTES = {"not-utf-8": b'{"id": "\xff"}', "empty": b"", "cut": b'{"id": "tiny', "brackets": b"[" * 100_000}
CASES = {**{name: json.dumps(value).encode() for name, value in ODD.items()}, **BYTES}
HOSTILE = "\x1b[2Jtiny\x9b\u202e\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two good runs, with metrics, and a registry of two versions with a champion."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        folder = place_run(tmp_path, f"tiny-{number}", {**GOOD, "id": f"tiny-{number}"})
        (folder / "metrics.json").write_text('{"distance": {"value": 2.5, "floor": 1, "n": 40, "judge": null}}')
    registry, model = Registry(tmp_path / "registry"), tmp_path / "model"
    model.mkdir()
    for number in (1, 2):
        (model / "weights").write_text(str(number))
        registry.register(
            "tiny",
            {"model": model},
            metrics={"distance": {"value": 1.0}},
            evaluation_key="k",
            weights_sha256=str(number),
            lineage={"run": f"tiny-{number}", "parents": {"model": "/store/samples"}},
        )
    registry.promote("tiny", 1, "first")
    return tmp_path


def place_run(root: Path, name: str, content: object) -> Path:
    folder = root / "runs" / "images-training" / name
    folder.mkdir(parents=True)
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / "run.json").write_bytes(data)
    return folder


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, list[str]]:
    """What a command that ends well says: stdout, and the lines of stderr."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    return said.out, said.err.splitlines()


@pytest.mark.parametrize("case", CASES)
def test_an_odd_run_is_one_warning_and_the_others_are_listed(
    case: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place_run(project, "odd", CASES[case])
    for command in (["runs"], ["gallery"], ["lineage", "tiny-1/samples"], ["compare", "tiny-1", "tiny-2"]):
        out, errors = call(capsys, *command)
        assert len(errors) == 1, errors
        assert errors[0].startswith("warning: ")
        assert "odd/run.json" in errors[0]
        assert command[0] != "runs" or ("tiny-1" in out and "tiny-2" in out)
    assert "tiny-2" in (project / "runs" / "index.html").read_text()


def test_what_a_later_version_added_is_kept(project: Path) -> None:
    run = find_run(project / "runs", "tiny-1")
    run.save(status="failed")
    again = find_run(project / "runs", "tiny-1")
    assert (again.status, again.facts["added_by_a_later_version"]) == ("failed", {"x": 1})
    assert again.step("sample")["cached"] is False


@pytest.mark.parametrize("content", [b"[]", b'{"distance": 3}', b'{"distance": {"value": "x"}}', b"\xff"])
def test_odd_metrics_cost_themselves_alone(content: bytes, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "runs/images-training/tiny-2/metrics.json").write_bytes(content)
    out, errors = call(capsys, "compare", "tiny-1", "tiny-2")
    assert "distance" in out
    assert [line.startswith("warning: ") for line in errors] == [True]
    call(capsys, "show", "tiny-2")


@pytest.mark.parametrize("content", [b"{}", b"[]", b"null", b"\xff", b'{"version": 1, "files": 3}', b"[" * 9999])
@pytest.mark.parametrize("name", ["versions/00002/manifest.json", "champion.json", "history/00.json"])
def test_an_odd_entry_of_the_registry_is_one_warning(
    name: str, content: bytes, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "registry" / "tiny" / name).write_bytes(content)
    if (name, content[:12]) == ("champion.json", b'{"version": '):
        return  # a good pointer
    out, errors = call(capsys, "models", "tiny")
    assert "tiny" in out
    assert [name in line and line.startswith("warning: ") for line in errors] == [True]
    call(capsys, "gallery")
    call(capsys, "lineage", "tiny@1")


def test_who_is_in_service_is_never_guessed(project: Path) -> None:
    (project / "registry/tiny/champion.json").write_text("{}")
    with pytest.raises(UserError, match=r"champion\.json: version: is missing"):
        Registry(project / "registry").champion("tiny")


def test_names_with_escapes_are_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [{"name": HOSTILE, "state": HOSTILE, "error": HOSTILE}]
    place_run(project, "odd", {**GOOD, "id": HOSTILE, "job": HOSTILE, "pipeline": HOSTILE, "steps": steps})
    registry = Registry(project / "registry")
    registry.record("tiny", "refuse", HOSTILE)
    folder = str(project / "runs/images-training/odd")
    for command in (["runs"], ["show", folder], ["models", "tiny"], ["compare", folder, "tiny-1"]):
        for output in ([], ["--json"]):
            out, _ = call(capsys, *command, *output)
            assert all(character.isprintable() or character == "\n" for character in out)
            assert "\\x1b[2J" in out or "\\u001b[2J" in out
    assert len(list_runs(project / "runs")) == 3
