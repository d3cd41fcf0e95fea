"""The rooms and the arrows between them: `pipelines, local -> components -> core`."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["core", "report", "factory", "components", "pipelines", "local", "textdiffusion"]
FORBIDDEN = {
    "core": ("factory", "report", "components", "pipelines", "local", "textdiffusion", "kfp", "google"),
    "report": ("factory", "components", "pipelines", "local", "textdiffusion", "kfp", "google"),
    "factory": ("components", "pipelines", "local", "textdiffusion", "kfp", "google"),
    "components": ("pipelines", "local", "textdiffusion"),
    "pipelines": ("textdiffusion",),
    "local": ("textdiffusion",),
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


@pytest.mark.parametrize("room", FORBIDDEN)
def test_arrows_between_rooms_point_one_way(room: str) -> None:
    assert sources(room)
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(room)
        for name in imported(path)
        if name.split(".")[0] in FORBIDDEN[room]
    ]
    assert wrong == []


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
