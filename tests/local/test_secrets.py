"""Whatever a run leaves behind, it is not the credentials of its environment."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.local.conftest import Project

CANARY = "canary-5f1c9e7a"
VARIABLES = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "CLOUDSDK_AUTH_ACCESS_TOKEN", "DATABASE_PASSWORD")


class Guarded(Project):
    """A project whose environment is full of credentials."""

    def environment(self) -> dict[str, str]:
        key = self.folder.parent / f"{self.folder.name}-key.json"
        key.write_text(json.dumps({"type": "service_account", "private_key": f"{CANARY}-key"}))
        secrets = {name: f"{CANARY}-{name}" for name in VARIABLES}
        return {**super().environment(), **secrets, "GOOGLE_APPLICATION_CREDENTIALS": str(key)}


def leaks(folder: Path, called: subprocess.CompletedProcess[str]) -> list[str]:
    """Where the canary is: files below `folder`, or what was printed."""
    found = [str(path) for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    return found + [name for name in ("stdout", "stderr") if CANARY in getattr(called, name)]


@pytest.mark.parametrize("override", ["sample.seed=1", "sample.seed=666"], ids=["a run", "a run with a traceback"])
def test_credentials_of_the_environment_are_in_no_log_and_no_record(project: Project, override: str) -> None:
    guarded = Guarded(project.folder)
    called = guarded.here("run", "tiny.yaml", "--set", override)
    assert guarded.latest().folder.joinpath("run.json").is_file()
    assert len([path for path in project.folder.rglob("log.txt") if path.is_file()]) >= 3
    assert leaks(project.folder, called) == []


def test_a_token_in_a_path_is_refused_and_kept_nowhere(project: Project) -> None:
    called = project.here("run", "tiny.yaml", "--set", f"data.data_dir=https://me:{CANARY}@host/data")
    assert called.returncode == 2
    assert "https://***@host/data" in called.stderr
    assert leaks(project.folder, called) == []


def test_the_search_finds_what_is_there(project: Project) -> None:
    (project.folder / "leak.txt").write_text(CANARY)
    called = subprocess.CompletedProcess([], 0, f"x {CANARY}", "")
    assert leaks(project.folder, called) == [str(project.folder / "leak.txt"), "stdout"]
