"""`--runner docker`: the whole path through kfp.local's DockerRunner, with a daemon that runs commands right here."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from factory.run_folder import find_run
from tests.local.conftest import Project
from textdiffusion.cli import app as cli

docker = pytest.importorskip("docker")


class Container:
    """A command that ran in this machine's environment instead of a container's."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        bin_folder = str(Path(sys.executable).parent)
        env = {**os.environ, **environment, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
        self._done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)

    def logs(self, stream: bool) -> Iterator[bytes]:
        assert stream
        yield from self._done.stdout.splitlines(keepends=True)

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self._done.returncode}


class Daemon:
    """As much of docker's client as kfp.local uses; `started` keeps how containers were asked for."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.images = mock.Mock()
        self.images.list.return_value = [mock.Mock(tags=["textdiffusion:fixed"], attrs={"RepoDigests": []})]
        self.containers = self

    def run(self, *, command: list[str], environment: dict[str, str], **options: Any) -> Container:
        self.started.append({"environment": environment, **options})
        return Container(command, environment)

    def info(self) -> dict[str, Any]:
        return {"SecurityOptions": [], "MemTotal": 10_000_000_000}

    def ping(self) -> bool:
        return True

    def list(self, filters: dict[str, str]) -> list[Any]:
        return []

    def close(self) -> None:
        pass


def run(project: Project, daemon: Daemon, *arguments: str) -> tuple[int, str]:
    errors = io.StringIO()
    with (
        mock.patch.dict(os.environ, project.environment()),
        mock.patch.object(docker, "from_env", return_value=daemon),
        contextlib.chdir(project.folder),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(errors),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main(["run", "tiny.yaml", "--runner", "docker", *arguments])
    return int(ended.value.code or 0), errors.getvalue()


def test_steps_run_in_containers_of_the_image_with_their_folders_mounted(project: Project) -> None:
    daemon = Daemon()
    code, errors = run(project, daemon)
    assert code == 0, errors
    finished = find_run(project.folder / "runs", "latest")
    assert finished.facts["runner"] == "local (docker)"
    assert finished.facts["gate"]["decision"] == "promote"
    assert "[KFP Executor" in (finished.folder / "steps/train/log.txt").read_text()
    asked = daemon.started[0]
    assert asked["image"] == "textdiffusion:fixed"
    mounted = {mount["Target"]: mount["ReadOnly"] for mount in asked["mounts"]}
    assert mounted[str(project.folder / "runs")] is mounted[str(project.folder / "registry")] is False
    assert asked["user"].split(":")[0] != "0"
    assert (asked["read_only"], asked["cap_drop"]) == (True, ["ALL"])
    assert (asked["pids_limit"], asked["mem_limit"]) == (4096, 9_000_000_000)
    assert asked["environment"]["TEXTDIFFUSION_WORK"] == str(project.folder / "runs" / ".work")
    assert asked["environment"]["TEXTDIFFUSION_IMAGE"] == "textdiffusion:fixed"


def test_the_limits_of_containers_are_settings(project: Project) -> None:
    with (project.folder / "textdiffusion.yaml").open("a") as file:
        file.write("\ncontainer_memory: 8g\ncontainer_processes: 1000\n")
    daemon = Daemon()
    run(project, daemon, "--set", "data.limit=13")  # its first step is enough
    assert (daemon.started[0]["pids_limit"], daemon.started[0]["mem_limit"]) == (1000, "8g")
    with (project.folder / "textdiffusion.yaml").open("a") as file:
        file.write("container_memory: much\n")
    assert run(project, daemon)[0] == 2


def test_a_user_error_in_a_container_is_exit_code_2(project: Project) -> None:
    code, errors = run(project, Daemon(), "--set", "data.limit=13")
    assert code == 2
    assert "step prepare-data failed: data.limit: found 13; allowed: lucky numbers" in errors


def test_a_missing_daemon_and_a_missing_image_are_one_line(project: Project) -> None:
    daemon = Daemon()
    daemon.images.list.return_value = []
    code, errors = run(project, daemon)
    assert (code, errors.count("\n")) == (2, 1)
    assert "no image textdiffusion:fixed here: make image" in errors
    assert list(project.folder.glob("runs/*/tiny-*")) == []  # refused before its first step: as if never asked
    with mock.patch.object(daemon, "ping", side_effect=docker.errors.DockerException("refused")):
        code, errors = run(project, daemon)
    assert (code, errors) == (2, "error: --runner docker: no docker daemon answers: refused\n")
