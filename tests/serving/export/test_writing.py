"""`textdiffusion export` and `playground`: checked before it is done, nothing lost, one line for what is wrong."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

import pytest

from core.errors import UserError
from factory.finding import FoundModel
from serving.export import check, writing
from serving.export import source as sources
from serving.playground import runtime
from serving.playground import writing as playground
from tests.serving.conftest import save_text
from tests.serving.export.conftest import MANNER, save_guided
from textdiffusion.cli import app as cli


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "images"
    save_guided(folder)
    return folder


def test_the_command_says_how_far_its_samples_are_from_ours(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["export", str(model), "--to", "hub", "--out", "out", "--steps", "3"]
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    assert "config.json: differs from our samples by at most" in said.out
    facts = json.loads((tmp_path / "out/export.json").read_text("utf-8"))
    (difference,) = facts["differences"]
    assert 0 <= difference["largest"] < difference["allowed"] == 2e-3
    assert set(facts["files"]) == {  # no guide.safetensors beside them: no autoguidance unless measured so
        "config.json", "model.safetensors", "sample.py", "README.md", "samples.png", "manifest.json",
        "model/model.json", "model/weights.safetensors", "model/guide.safetensors",
    }  # fmt: skip
    assert len(json.loads((tmp_path / "out/config.json").read_text("utf-8"))["rows"]) == 3


def test_an_export_whose_samples_differ_is_never_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(check.TOLERANCE, "images", -1.0)
    with pytest.raises(UserError, match=r"config.json: differs from this project's samples by .*; allowed: -1"):
        writing.export(str(model), "hub", tmp_path / "out", "", None, {"steps": 2})
    assert list(tmp_path.iterdir()) == []


def test_feedback_is_left_out_and_that_is_said(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with_it, without = (
        sources.load(FoundModel({"model": model}, {**MANNER, **more}), {}) for more in ({"feedback": 0.1}, {})
    )
    assert with_it.settings == without.settings
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("its files draw without sample.feedback")


@pytest.mark.parametrize("write", ["export", "playground"])
def test_what_is_there_is_left_alone(write: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match=f"holds something that is no {write}; choose another folder"):
        if write == "export":
            writing.export(str(model), "hub", tmp_path, "", None, {})
        else:
            playground.write(str(model), tmp_path, "", None, {})
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_what_cannot_be_exported_is_named(tmp_path: Path, model: Path) -> None:
    save_text(tmp_path / "masked", "masked")
    with pytest.raises(UserError, match="a model trained as masked; allowed: diffusion models"):
        writing.export(str(tmp_path / "masked"), "hub", tmp_path / "out", "", None, {})
    save_text(tmp_path / "text")
    with pytest.raises(UserError, match=r"guidance: found 2.0; text is exported without it: --guidance 1"):
        writing.export(str(tmp_path / "text"), "hub", tmp_path / "out", "", None, {"guidance": 2.0})
    with pytest.raises(UserError, match="--prompt is for models of text"):
        playground.write(str(model), tmp_path / "out", "", None, {}, "hello")
    with pytest.raises(UserError, match="token outside the vocabulary: found '!'"):
        playground.write(str(tmp_path / "text"), tmp_path / "out", "", None, {}, "hello!")
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_one_line(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "serving.export.onnx_files", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime is not installed: pip install 'textdiffusion\[export\]'"):
        writing.export(str(model), "onnx", tmp_path / "out", "", None, {})


class TestRuntime:
    def test_without_npm_the_way_by_hand_is_said(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(UserError, match=r"npm is not installed.* --runtime onnxruntime-web-1.30.0.tgz"):
            runtime.runtime()

    def test_the_reason_of_npm_is_said(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        npm = tmp_path / "npm"
        npm.write_text("#!/bin/sh\necho 'npm error network: no way out' >&2\nexit 1\n")
        npm.chmod(0o755)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(UserError, match=r"npm pack onnxruntime-web@1.30.0: npm error network: no way out; mend it"):
            runtime.runtime()
        assert not (tmp_path / "cache").exists()

    @pytest.mark.parametrize("damage", ["text", "empty", "other"])
    def test_another_package_is_refused(self, damage: str, tmp_path: Path) -> None:
        tarball = tmp_path / "package.tgz"
        tarball.write_text("no archive")
        if damage != "text":
            with tarfile.open(tarball, "w:gz") as archive:
                for name in runtime.FILES if damage == "other" else ():
                    (tmp_path / name).write_text("not it")
                    archive.add(tmp_path / name, f"package/dist/{name}")
        with pytest.raises(UserError, match=r"package.tgz: .*(not the npm package|its SHA-256 differs)"):
            runtime.runtime(tarball)
