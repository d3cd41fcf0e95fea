"""What holds in every room. The arrows between rooms are contracts of import-linter in pyproject.toml (`make lint`)."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.joins import Joins

ROOT = Path(__file__).parents[1]
ROOMS = ["core", "report", "factory", "components", "pipelines", "local", "serving", "textdiffusion"]
JOINS = {  # with what is no name that was read
    "pipelines/jobs.py: base / Path(data_dir).expanduser()": "a place that a person chose, which may be absolute",
    "pipelines/jobs.py: base / Path(name).expanduser()": "a place that a person chose, which may be absolute",
}
LONGEST = 320  # lines; a file has one subject and is usually under 250


def sources(room: str) -> list[Path]:
    return sorted(path for path in (ROOT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Modules that a file imports anywhere, inside functions too (component bodies import there)."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("core/noise.py", "import factory.job", "A room imports only from the rooms below it"),
        ("pipelines/jobs.py", "from local import runner", "A room imports only from the rooms below it"),
        ("factory/gate.py", "import kfp", "knows nothing of pipelines and clouds"),
        ("core/storage/files.py", "def late():\n    from core.images import data", "In core:"),
        ("pipelines/kubeflow/submit.py", "from pipelines.vertex import submit", "do not know each other"),
        ("report/charts.py", "from report import page", "No circles"),
    ],
)
def test_the_linter_refuses_an_arrow_back_and_a_circle(file: str, line: str, contract: str, tmp_path: Path) -> None:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a", encoding="utf-8") as stream:
        stream.write(f"\n\n{line}\n")
    program = "from importlinter.cli import lint_imports_command as c; c(['--no-logo', '--no-cache'])"
    done = subprocess.run([sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False)  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert re.search(rf"{contract}.* BROKEN", done.stdout), done.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_no_file_outgrows_its_subject(room: str) -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources(room)}
    assert {name: count for name, count in lengths.items() if count > LONGEST} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_no_pickle_crosses_a_boundary(room: str) -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in sources(room)
        if {"pickle", "dill", "joblib", "cloudpickle"} & {name.split(".")[0] for name in imported(path)}
        or re.search(r"(?<!safetensors\.)torch\.load\(", path.read_text())
        or "allow_pickle=True" in path.read_text()
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_shell_and_no_code_is_made_from_text(room: str) -> None:
    wrong = []
    for path in sources(room):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called == "get_completion_script":  # whose `shell` is the name of one
                continue
            shell = any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in node.keywords)
            if shell or called in ("eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "compile"):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {called}")
    assert wrong == []


def test_names_that_were_read_are_joined_to_folders_by_one_function() -> None:
    """By `core.names.inside`: everything else joins names that are written in the code."""
    texts = {str(path.relative_to(ROOT)): path.read_text("utf-8") for room in ROOMS for path in sources(room)}
    joins = Joins(texts)
    assert sorted(set(joins.unchecked())) == sorted(JOINS)
    assert sorted(joins.unknown()) == [], "annotate it as a Path: joins of what is not known are not seen"


@pytest.mark.parametrize(
    "line",
    [
        "return folder / name",
        "return (folder / 'x').parent / files[0]",
        "return self.root / f'{name}.json'",
        "return [folder / file for file in files]",
        "return Path(folder, name)",
        "return Path(f'{folder}/{name}')",
        "return folder.joinpath(*files)",
        "return os.path.join(folder, name)",
        "return storage.join(uri, 'files', name)",
        "return storage.read_bytes(f'{uri}/{name}')",
        "target = Path(uri)\n    return target / name",
        "for path in folder.rglob('*'):\n        path / name",
        "with storage.atomic_folder(folder) as temporary:\n        temporary / name",
    ],
)
def test_a_join_beside_that_function_is_seen(line: str) -> None:
    head = "class Place:\n    root: Path\n\ndef f(self, folder: Path, uri: str, name: str, files: list[str]):\n    "
    assert len(list(Joins({"x.py": head + line}).unchecked())) == 1
    assert list(Joins({"x.py": head + "return folder / 'a' / NAME, inside(folder, name), 1 / name"}).unchecked()) == []


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_is_printed_but_by_say(room: str) -> None:
    """Text from models and files may command a terminal; `core.printable.say` shows it harmlessly."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(room)
        if path != ROOT / "core" / "printable.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "print"
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ROOMS)
def test_lines_of_files_end_with_a_line_feed_alone(room: str) -> None:
    """`splitlines` also cuts at U+2028, form feeds and the like, which texts may hold; it is for programs' output."""
    allowed = {"containers.py", "doctor.py"}
    found = {path.name for path in sources(room) if ".splitlines(" in path.read_text(encoding="utf-8")}
    assert found <= allowed
