"""What of the caller reaches the steps of a local run: the variables of one table, and no file of the folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from local.environment import TABLE, allowed, container_environment, step_environment
from tests.local.conftest import REPOSITORY, Project

SECRETS = (
    "HF_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "CLOUDSDK_AUTH_ACCESS_TOKEN",
    "TEXTDIFFUSION_KUBEFLOW_TOKEN",
    "PGPASSWORD",
)


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """One variable for each name of the table, and credentials."""
    for name in SECRETS:
        monkeypatch.setenv(name, "secret")
    for row in TABLE:
        for name in row.names:
            monkeypatch.setenv(name.replace("*", "EXAMPLE"), "a" if name != "PATH" else os.environ["PATH"])


def made(more: tuple[str, ...] = ()) -> dict[str, str]:
    return step_environment(Path("/code"), Path("/runs"), Path("/events"), Path("/scratch"), "abc", more)


@pytest.mark.usefixtures("everything")
def test_steps_get_what_the_table_names_and_no_credential_of_the_shell() -> None:
    found = made()
    assert not set(SECRETS) & set(found)
    assert {name.replace("*", "EXAMPLE") for row in TABLE for name in row.names} <= set(found)


@pytest.mark.usefixtures("everything")
def test_containers_get_less_and_neither_the_token_nor_the_path() -> None:
    found = container_environment(made())
    assert not {*SECRETS, "PATH", "HOME", "PYTHONPATH", "GOOGLE_APPLICATION_CREDENTIALS"} & set(found)
    assert {"OMP_EXAMPLE", "TEXTDIFFUSION_WORK", "TEXTDIFFUSION_EVENTS", "TEXTDIFFUSION_PROCESSES"} <= set(found)


@pytest.mark.usefixtures("everything")
def test_what_the_setting_names_is_passed_too() -> None:
    assert made(("AWS_SECRET_ACCESS_KEY",))["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert container_environment(made(("PGPASSWORD",)), ("PGPASSWORD",))["PGPASSWORD"] == "secret"


def test_an_empty_part_of_the_path_is_not_the_folder_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}/mine{os.pathsep}")
    assert made()["PYTHONPATH"] == f"/code{os.pathsep}/mine"


def test_the_threat_model_lists_the_table() -> None:
    page = (REPOSITORY / "docs" / "threat-model.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`([A-Za-z_*]+)`", page.partition("## What steps are given")[2]))
    assert {name for row in TABLE for name in row.names} <= listed
    assert allowed({name: "x" for name in listed if name in SECRETS}) == {}


def test_files_named_like_modules_in_the_folder_are_not_imported_by_steps(project: Project) -> None:
    """The command is started as its console script is: without the folder on its path."""
    for name in ("copy", "random", "kfp", "json", "torch", "core", "local"):
        (project.folder / f"{name}.py").write_text(
            "import pathlib\npathlib.Path('imported').touch()\nraise SystemExit(9)\n"
        )
    command = [sys.executable, "-P", *project.command("run", "tiny.yaml", "--json")[1:]]
    environment = project.environment() | dict.fromkeys(SECRETS, "secret")
    called = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=120)
    assert called.returncode == 0, called.stderr
    assert json.loads(called.stdout)["status"] == "succeeded"
    assert not (project.folder / "imported").exists()
