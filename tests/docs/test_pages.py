"""The pages "bring your own", followed literally: files written, lines added, commands typed, in the order of the page.

A block with a title is a file to write or, as `diff`, lines to change; a block of `sh` is typed. Pages that change the
code are followed on a copy of the repository.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.images.config import EMBEDDED
from pipelines.jobs import load_job

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)
ROOMS = ("core", "factory", "report", "components", "pipelines", "local", "serving", "textdiffusion", "containers")


@dataclass
class Reader:
    """Someone who does what a page says, in a folder."""

    folder: Path
    code: Path

    def follow(self, page: str) -> None:
        blocks = BLOCK.findall((ROOT / "docs/own" / page).read_text(encoding="utf-8"))
        assert blocks
        for language, title, body in blocks:
            if language == "diff":
                self.change(self.folder / title, body)
            elif title:
                (self.folder / title).write_text(body, encoding="utf-8")
            elif language == "sh":
                self.type(body)

    def change(self, path: Path, lines: str) -> None:
        before = "".join(f"{line[1:]}\n" for line in lines.splitlines() if not line.startswith("+"))
        after = "".join(f"{line[1:]}\n" for line in lines.splitlines() if not line.startswith("-"))
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{path.name}: {before!r} is there {text.count(before)} times"
        path.write_text(text.replace(before, after), encoding="utf-8")

    def type(self, commands: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TEXTDIFFUSION_")}
        environment = {
            **kept,
            "PYTHONPATH": str(self.code),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        script = f'textdiffusion() {{ "{sys.executable}" -m textdiffusion "$@"; }}\n{commands}'
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{commands}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """In an empty folder."""
    return Reader(tmp_path, ROOT)


@pytest.fixture
def developer(tmp_path: Path) -> Reader:
    """In a copy of the repository."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.lock", ".dockerignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    return Reader(tmp_path, tmp_path)


def test_own_images(reader: Reader) -> None:
    reader.follow("images.md")
    assert (reader.folder / "circle.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_own_text(reader: Reader) -> None:
    reader.follow("text.md")
    assert list((reader.folder / "registry/my-text/versions").glob("*/manifest.json"))


@pytest.mark.slow
def test_own_network(developer: Reader) -> None:
    developer.follow("network.md")
    assert (developer.folder / "seven.png").read_bytes().startswith(b"\x89PNG")


def test_own_sampler(developer: Reader) -> None:
    developer.follow("sampler.md")
    assert "midpoint" in (developer.folder / "core/samplers.py").read_text()


@pytest.mark.slow
def test_own_step(developer: Reader) -> None:
    developer.follow("step.md")
    (animation,) = developer.folder.glob("runs/images/*/steps/animate/path.gif")
    assert animation.read_bytes().startswith(b"GIF89a")


def test_the_first_command_downloads_nothing_and_what_follows_in_the_tutorial_is_of_its_job() -> None:
    (name,) = re.findall(r"^JOB \?= (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    job = load_job(name)
    assert (job.data.source, job.data.data_dir) == ("mnist-small", None)
    assert job.data.source in EMBEDDED
    for page in ("README.md", "docs/tutorial.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert "\nmake run-local" in text
        assert f"generate --model {name} --class 7" in text


def test_every_page_is_followed() -> None:
    followed = set(re.findall(r'follow\("(\w+\.md)"\)', Path(__file__).read_text(encoding="utf-8")))
    reference = {"files.md"}  # tables and settings: nothing to type
    assert followed == {path.name for path in (ROOT / "docs/own").glob("*.md")} - reference
