"""One process at a time goes on with a run, and a start that is refused leaves nothing that could be gone on with."""

from __future__ import annotations

import signal
import subprocess

from core import storage
from factory.run_folder import LOCK
from tests.local.conftest import Project


def test_a_start_that_is_refused_leaves_no_folder_and_latest_as_it_was(project: Project) -> None:
    refused = project.here("run", "tiny.yaml", "--set", "data.data_dir=missing")
    assert refused.returncode == 2
    assert "data.data_dir: no files at" in refused.stderr
    assert list(project.folder.glob("runs/*/tiny-*")) == []
    assert not (project.folder / "runs" / "latest").is_symlink()


def test_of_two_that_resume_one_run_one_runs_and_the_other_is_told(project: Project) -> None:
    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            project.command("run", *arguments), cwd=project.folder, env=project.environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    failed = project.here("run", "tiny.yaml", "--set", "sample.seed=666")
    assert failed.returncode == 1
    run = project.latest()
    facts = storage.read_json(run.folder / "run.json")
    facts["config"]["sample"]["seed"] = 1
    facts["config"]["train"]["seed"] = 99  # takes a minute
    storage.write_json(run.folder / "run.json", facts)
    first = start("tiny.yaml", "--resume")
    while not (run.folder / LOCK).read_text():
        assert first.poll() is None
    second = project.here("run", "--resume", run.id)
    assert second.returncode == 2
    assert f"process {first.pid} holds it" in second.stderr
    assert second.stderr.count("\n") == 1
    assert project.json("show", run.id)["status"] == "running"
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert first.returncode == 130
    assert project.latest().status == "failed"
