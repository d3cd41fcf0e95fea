"""A project folder with a tiny job whose steps are the stand-ins of `standin/`, and the command line in it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from factory.run_folder import Run, find_run
from textdiffusion.cli import app as cli

REPOSITORY = Path(__file__).parents[2]
STAND_IN = Path(__file__).parent / "standin"
JOB = """
job: tiny
description: Steps that take no time
modality: images
data: {source: digits, limit: 200}
train: {examples: 512, batch_size: 32}
sample: {count: 40, steps: 4}
evaluate: {count: 40}
gate: {metric: frechet_distance, better: lower, first_floors: 0}
resources: {train: cpu, sample: cpu}
"""


@dataclass
class Project:
    """A folder in which the command line is called."""

    folder: Path
    code: Path = REPOSITORY

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TEXTDIFFUSION_")}
        return {
            **kept,
            "PYTHONPATH": f"{STAND_IN}{os.pathsep}{self.code}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TEXTDIFFUSION_PROCESSES": "1",  # said, so that no step imports torch to count GPUs
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "textdiffusion", *arguments]

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command in a process of its own: for what such a process alone shows."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def here(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command in this process, which has imported everything: seconds less. Steps get processes as ever."""
        output, errors = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self.environment(), clear=True),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
            pytest.raises(SystemExit) as ended,
        ):
            cli.main(list(arguments))
        code = ended.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())

    def run(self, *overrides: str) -> Run:
        """A run of the job with overrides; fails the test if the run fails."""
        ended = self.here("run", "tiny.yaml", *(part for text in overrides for part in ("--set", text)))
        assert ended.returncode == 0, ended.stderr
        return self.latest()

    def latest(self) -> Run:
        return find_run(self.folder / "runs", "latest")

    def json(self, *arguments: str) -> Any:
        called = self.here(*arguments, "--json")
        assert called.returncode == 0, called.stderr
        return json.loads(called.stdout)


def make_project(folder: Path, settings: str = "image: textdiffusion:fixed") -> Project:
    """A project folder; its image is fixed, so that edits of the repository do not disturb tests of the cache."""
    (folder / "tiny.yaml").write_text(JOB)
    (folder / "textdiffusion.yaml").write_text(settings)
    return Project(folder)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One project for tests that only look at a finished run."""
    project = make_project(tmp_path_factory.mktemp("shared"))
    project.run()
    return project


@pytest.fixture
def states() -> Callable[[Run], dict[str, str]]:
    return lambda run: {step["name"]: step["state"] for step in run.steps}
