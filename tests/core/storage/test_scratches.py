"""What a killed process left in the temporary folder is removed by the next one; what lives is let be."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from core.storage import scratches

HOLD = """
import os, signal, sys
from core.storage import scratches
with scratches.temporary_folder() as path:
    print(path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def start() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(place: Path) -> None:
    process, left = start()
    other = place / "textdiffusion-other-1"
    other.mkdir()  # without a lock: of nobody that is known
    with scratches.temporary_folder() as own:
        assert left.is_dir()
    assert not own.exists()
    process.kill()
    process.wait()
    with scratches.temporary_folder():
        assert not left.exists()
    assert other.is_dir()


def test_a_folder_lives_as_long_as_a_process_that_inherited_its_lock(place: Path) -> None:
    with scratches.held_folder() as (path, lock):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
        (place / "kept").mkdir()
        path.rename(place / "textdiffusion-kept-1")  # as if this process were killed: it does not remove it
    scratches.sweep()
    assert (place / "textdiffusion-kept-1").is_dir()
    child.communicate(b"\n")
    scratches.sweep()
    assert not (place / "textdiffusion-kept-1").exists()
