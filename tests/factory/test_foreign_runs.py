"""The record of a run that somebody else made: it names files of its own folder, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core import storage
from core.errors import UserError
from factory.run_folder import Run, find_run, list_runs, new_run
from local import gallery
from textdiffusion.cli import app as cli


def hostile(root: Path, **artifact: Any) -> Run:
    """A finished run of which one artifact is `artifact`."""
    run = new_run(root, "images", "digits", ["train"], {"config": {"modality": "images"}})
    whole = {"path": "steps/train", "uri": "", "type": "system.Model", "metadata": {}, **artifact}
    run.update("train", state="succeeded", artifacts={"model": whole})
    run.save(status="succeeded")
    return run


@pytest.mark.parametrize(
    "path", ["/etc", "../../../secret", "steps/../../../../secret", "steps\\..\\x", "a\0b", "steps/out"]
)
def test_an_artifact_elsewhere_is_refused_and_the_other_runs_are_shown(
    path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "model.json").write_text("{}")
    good, bad = hostile(tmp_path / "runs"), hostile(tmp_path / "runs", path=path)
    (bad.folder / "steps" / "out").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="refuses the name"):
        find_run(tmp_path / "runs", str(bad.folder))
    assert [run.id for run in list_runs(tmp_path / "runs")] == [good.id]
    gallery.write(tmp_path / "runs", str(tmp_path / "registry"))
    for command in (
        ("run", "digits", "--only", "sample", "--from", str(bad.folder)),
        ("report", str(bad.folder)),
        ("show", str(bad.folder)),
        ("download", str(bad.folder), "copy"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(list(command))
        assert ended.value.code == 2, command
        assert "refuses the name" in capsys.readouterr().err
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("pipeline", ["../escaped", "/{tmp}/escaped", "..", "a/../../escaped", "a\\b", "", "a/b"])
def test_a_pipeline_of_a_foreign_record_makes_no_folder_elsewhere(pipeline: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="pipeline: refuses the name"):
        new_run(tmp_path / "runs", pipeline.format(tmp=str(tmp_path).lstrip("/")), "digits", ["train"], {})
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_record_of_another_form_is_passed_over(tmp_path: Path) -> None:
    good = hostile(tmp_path / "runs")
    for number, steps in enumerate(([1], "x", None, [{"artifacts": [1]}], [{"name": "a", "artifacts": {"m": 3}}])):
        record = {"id": "x", "status": "succeeded", "job": "digits", "steps": steps}
        storage.write_json(tmp_path / "runs" / "images" / str(number) / "run.json", record)
    assert [run.id for run in list_runs(tmp_path / "runs")] == [good.id]
