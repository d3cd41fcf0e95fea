"""The command line: fast help, one-line errors, JSON on request."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.compile import ROOT

HEAVY = ("kfp", "torch", "google.cloud.aiplatform", "numpy", "rich.table", "yaml", "pydantic")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


def test_help_imports_nothing_heavy_and_answers_at_once() -> None:
    program = f"import sys, pipelines.cli as c; c.make_app(); print([n for n in {HEAVY!r} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "pipelines.cli", "--help"], cwd=ROOT, capture_output=True, check=True)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.5


@pytest.mark.parametrize("command", ["jobs", "compile", "run", "runs", "show", "lineage", "compare", "report", "models",
                                     "promote", "rollback", "download", "generate", "doctor"])  # fmt: skip
def test_every_documented_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, "--help") == 0
    assert command in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Missing argument"),
        (["frobnicate"], "No such command"),
        (["run", "nothing"], "job 'nothing': there is none; allowed: digits"),
        (["run", "digits", "--runner", "moon"], "moon"),
        (["run", "digits", "--set", "train.batch_size=many"], "train.batch_size"),
        (["run", "digits", "--set", "tarin.minutes=1"], "tarin"),
        (["run", "digits", "--only", "train"], "--only STEP and --from RUN go together"),
        (["run", "digits", "--debug"], "--debug"),
        (["run", "digits", "--resume"], "no unfinished run of digits"),
        (["run", "digits", "--only", "train", "--from", "nothing"], "run 'nothing': there is none"),
        (["run", "missing.yaml"], "missing.yaml"),
        (["show", "nothing"], "run 'nothing': there is none"),
        (["lineage", "nothing"], "expected RUN/STEP"),
        (["compile", "nothing"], "job 'nothing'"),
        (["promote", "digits"], "expected MODEL@NUMBER"),
        (["promote", "digits@3"], "no such version"),
        (["rollback", "digits"], "no earlier champion"),
        (["rollback", "../x"], "expected lower case letters"),
        (["download", "nothing", "there"], "there is none"),
        (["generate", "--model", "nothing"], "no champion"),
        (["generate", "--model", "./nothing"], "cannot be read"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert not list(tmp_path.iterdir())  # nothing was left behind


def test_a_broken_settings_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "textdiffusion.yaml").write_text("project: [unclosed\n")
    assert call("runs") == 2
    assert "textdiffusion.yaml: not valid YAML" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["jobs"], ["runs"], ["models"], ["doctor"]], ids=" ".join)
def test_tables_are_json_on_request(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments, "--json") == 0
    assert isinstance(json.loads(capsys.readouterr().out), list)


def test_compile_writes_both_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call("compile", "digits") == 0
    assert sorted(path.name for path in (tmp_path / "build/pipelines").iterdir()) == [
        "digits.vertex.yaml",
        "digits.yaml",
    ]
