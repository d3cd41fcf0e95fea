"""Schemas for editors hold for the predefined jobs; written configurations load as what they were made from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from core.config import read_yaml
from pipelines.jobs import CONFIGS, job_names, load_job
from pipelines.schema import describe, job_schema, settings_schema, walk
from pipelines.settings import Settings, load_settings
from textdiffusion.cli import app as cli

LINE = re.compile(r"# yaml-language-server: \$schema=(\S+)")


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", job_names())
def test_predefined_jobs_are_valid_and_name_the_schema(name: str) -> None:
    path = CONFIGS / f"{name}.yaml"
    jsonschema.validate(read_yaml(path), job_schema())
    named = LINE.match(path.read_text(encoding="utf-8"))
    assert named
    assert (path.parent / named[1]).resolve() == (CONFIGS.parents[1] / ".textdiffusion/job.schema.json").resolve()


@pytest.mark.parametrize(
    "change", [{"trian": {}}, {"train": {"batch_size": 0}}, {"modality": "sound"}, {"job": "No Spaces"}, {"gate": None}]
)
def test_what_the_loader_refuses_the_schema_refuses(change: dict) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**read_yaml(CONFIGS / "digits.yaml"), **change}, job_schema())


@pytest.mark.parametrize("like", job_names())
def test_init_writes_a_job_that_loads_as_the_one_it_is_like(
    like: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init", "mine", "--like", like) == 0
    text = Path("mine.yaml").read_text(encoding="utf-8")
    wanted = load_job(like).model_copy(update={"job": "mine"})
    assert load_job("mine.yaml") == wanted
    named = LINE.match(text)
    assert named
    jsonschema.validate(read_yaml(Path("mine.yaml")), json.loads(Path(named[1]).read_text()))
    settings = [setting for setting in walk(type(wanted).model_json_schema(), wanted.model_dump(mode="json"))]
    assert all(re.search(rf"^ *(# )?{setting.name}:", text, re.M) for setting in settings)  # all of them are there


def test_init_writes_settings_and_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init") == 0
    assert load_settings(environment={}) == Settings()
    text = Path("textdiffusion.yaml").read_text(encoding="utf-8")
    assert all(f"# {name}:" in text for name in Settings.model_fields)
    Path("textdiffusion.yaml").write_text("region: europe-west4\n")
    assert call("init") == 2
    assert "textdiffusion.yaml: is there already" in capsys.readouterr().err
    assert Path("textdiffusion.yaml").read_text(encoding="utf-8") == "region: europe-west4\n"


def test_schema_is_printed_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("schema", "settings") == 0
    assert json.loads(capsys.readouterr().out) == settings_schema()
    assert call("schema", "job", "--out", "job.json") == 0
    assert json.loads(Path("job.json").read_text()) == job_schema()


def test_what_a_value_may_be_is_said_in_words() -> None:
    assert describe({}, {"type": "integer", "minimum": 1, "maximum": 1000000}) == "integer from 1 to 1,000,000"
    assert (
        describe({}, {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]})
        == "number above 0 or null"
    )
    assert describe({}, {"enum": ["a", 1]}) == "a, 1"
    names = [".".join(setting.path) for setting in walk(job_schema()["$defs"]["ImageTrainingJob"] | job_schema())]
    assert "model.network.channels" in names
    assert "train.batch_size" in names
