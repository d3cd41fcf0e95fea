"""The command line: fast help with examples that hold, one-line errors, JSON on request, completion."""

from __future__ import annotations

import inspect
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer

from factory.registry import Registry
from pipelines.compile import ROOT
from textdiffusion.cli import app as cli
from textdiffusion.cli.output import print_metrics

HEAVY = ("kfp", "torch", "google.cloud.aiplatform", "numpy", "rich.table", "yaml", "pydantic")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


def test_help_imports_nothing_heavy_and_answers_at_once() -> None:
    program = f"import sys, textdiffusion.cli.app as c; c.make_app(); print([n for n in {HEAVY!r} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    seconds = []  # of CPU: a machine that does other things too takes longer by the clock
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "textdiffusion", "--help"], cwd=ROOT, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


def commands() -> dict[str, Any]:
    """Every command by what one types, `schedule create` included."""
    found = {}
    for name, command in typer.main.get_command(cli.make_app()).commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {key}": one for key, one in inner.items()} if inner else {name: command}
    return found


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_has_examples_that_can_be_typed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*name.split(), "--help") == 0
    shown = capsys.readouterr().out
    examples = [line.strip() for line in shown.partition("Examples:")[2].splitlines() if line.strip()]
    assert examples
    for example in examples:
        words = shlex.split(example.partition(" >")[0])
        assert words[: 1 + len(name.split())] == ["textdiffusion", *name.split()]
        commands()[name].make_context(name, words[1 + len(name.split()) :])  # options and values are checked


@pytest.mark.parametrize("name", sorted(commands()))
def test_whatever_prints_a_table_prints_json_on_request(name: str) -> None:
    source = inspect.getsource(commands()[name].callback)
    options = {text for parameter in commands()[name].params for text in parameter.opts}
    assert "--json" in options or not re.search(r"\b(answer|print_entries|render|_print_tree)\(", source)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("textdiffusion sched", "schedule"),
        ("textdiffusion schedule cr", "create"),
        ("textdiffusion run pyd", "pydoc"),
        ("textdiffusion run ./t", None),
        ("textdiffusion show lat", "latest"),
        ("textdiffusion generate --mod", "--model"),
        ("textdiffusion generate --model my-", "my-model"),
    ],
)
def test_the_shell_completes(typed: str, offered: str | None, tmp_path: Path) -> None:
    (tmp_path / "registry/my-model/versions").mkdir(parents=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "_TEXTDIFFUSION_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    command = [sys.executable, "-m", "textdiffusion"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ([offered] if offered else [])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_asks_this_program(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # so that the shell can be named
    monkeypatch.setattr(cli, "command", cli.command.__wrapped__)  # that is read where the command line is built
    assert call("--show-completion", shell) == 0
    script = capsys.readouterr().out
    assert f"_TEXTDIFFUSION_COMPLETE=complete_{shell}" in script
    if found := shutil.which(shell):
        assert subprocess.run([found, "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "which job?"),
        (["frobnicate"], "No such command"),
        (["run", "nothing"], "job 'nothing': there is none; allowed: cifar10, "),
        (["run", "digits", "--runner", "moon"], "moon"),
        (["run", "digits", "--set", "train.batch_size=many"], "train.batch_size"),
        (["run", "digits", "--set", "tarin.minutes=1"], "tarin"),
        (["run", "digits", "--only", "train"], "--only STEP and --from RUN go together"),
        (["run", "digits", "--debug"], "--debug"),
        (["run", "digits", "--resume"], "no unfinished run of digits"),
        (["run", "digits", "--only", "train", "--from", "nothing"], "run 'nothing': there is none"),
        (["run", "missing.yaml"], "missing.yaml: no such file; job files there: none; `textdiffusion init missing`"),
        (["run", "digit"], "did you mean 'digits'? allowed: cifar10, "),
        (["run", "digits", "--set", "train.batchsize=64"], "did you mean 'batch_size'? allowed: batch_size, betas"),
        (["run", "digits", "--set", "batch_size=64"], "did you mean 'train.batch_size'? allowed: data, "),
        (["run", "digits", "--set", "model.network.chanels=[8]"], "did you mean 'channels'? allowed: attention, "),
        (["run", "digits", "--set", "sample.labels=[99]"], "sample.labels: found '99'; allowed: 0, 1"),
        (["compile", "digits", "--set", "train.guide_at=null"], "which needs train.guide_at"),
        (["init", "mine", "--data", "nothing"], "--data: nothing: no such file or folder"),
        (["init", "--data", "nothing"], "--data goes with NAME"),
        (["compare", "digits@1", "digits@2"], "digits@1: no such version"),
        (["init", "Bad Name"], "lower case letters"),
        (["init", "mine", "--like", "nothing"], "job 'nothing'"),
        (["show", "nothing"], "run 'nothing': there is none"),
        (["report", 300 * "x"], "File name too long"),
        (["lineage", "nothing"], "expected RUN/STEP"),
        (["compile", "nothing"], "job 'nothing'"),
        (["promote", "digits"], "expected MODEL@NUMBER"),
        (["promote", "digits@²"], "expected MODEL@NUMBER"),  # a digit to str.isdigit, and none to int
        (["promote", "digits@١"], "expected MODEL@NUMBER"),  # a digit to int too, and no version's name
        (["promote", "digits@1234567890"], "expected MODEL@NUMBER"),
        (["promote", "digits@3"], "no such version"),
        (["rollback", "digits"], "digits: no such model in registry; registered models: none"),
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


def test_a_model_whose_newest_version_is_provisional_is_listed_with_the_way_into_service(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "weights").write_bytes(b"w")
    store = Registry(str(tmp_path / "kept"))
    facts: dict[str, Any] = {"metrics": {}, "evaluation_key": "", "weights_sha256": "w", "lineage": {}}
    store.register("pets", {"model": tmp_path / "made"}, **facts, provisional=True)
    way = "textdiffusion promote pets@1"
    assert call("models", "--registry", str(tmp_path / "kept")) == 0
    assert way in capsys.readouterr().out
    store.promote("pets", 1, "by hand")
    assert call("models", "--registry", str(tmp_path / "kept")) == 0
    assert way not in capsys.readouterr().out


def test_compile_writes_both_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call("compile", "digits") == 0
    assert sorted(path.name for path in (tmp_path / "build/pipelines").iterdir()) == [
        "digits.vertex.yaml",
        "digits.yaml",
    ]


def test_output_has_no_colours_unless_it_is_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["jobs"], ["doctor", "--no-cloud"], ["runs"]):
        call(*arguments)
        assert "\x1b" not in capsys.readouterr().out


def test_a_run_is_told_by_four_metrics_and_all_of_them_are_described_once(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["judge_nll", "word_validity", "guided/judge_nll", "js_1", "js_2", "entropy", "word_validity_4"]
    metrics = {name: {"value": 0.5, "floor": 0.25, "n": 64} for name in names}
    print_metrics(metrics, everything=False)
    said = capsys.readouterr().out
    assert [name for name in names if re.search(rf"^ *{name} ", said, re.M)] == [
        "judge_nll", "word_validity", "entropy", "word_validity_4"
    ]  # fmt: skip
    assert said.rstrip().endswith("3 more metrics: textdiffusion show --all")
    print_metrics(metrics, everything=True)
    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said for name in names)
    assert said.count("How surprised a separate") == 1


def test_a_run_says_its_first_line_before_anything_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "nothing") == 2
    assert capsys.readouterr().out == "nothing: compiling the pipeline\n"
    assert call("run", "nothing", "--json") == 2
    assert capsys.readouterr().out == ""


def test_the_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"textdiffusion {metadata.version('textdiffusion')}\n"


def test_a_job_is_written_for_own_data_and_is_not_that_of_digits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.txt").write_text("The cat sat on the mat. " * 400)
    assert call("init", "cats", "--data", "own.txt") == 0
    assert "9,600 characters of text" in capsys.readouterr().out
    assert call("compile", "cats.yaml", "--json") == 0
    written = (tmp_path / "cats.yaml").read_text()
    assert "handwritten" not in written
    assert call("init", "cats", "--data", "own.txt") == 2
    assert "is there already; nothing was written" in capsys.readouterr().err
    assert (tmp_path / "cats.yaml").read_text() == written


def test_a_file_without_its_suffix_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pets.yaml").write_text("job: pets\n")
    assert call("run", "pets") == 2
    assert "pets.yaml is a file here: name it so" in capsys.readouterr().err
    assert call("run", "pet.yaml") == 2
    assert "did you mean 'pets.yaml'?" in capsys.readouterr().err
