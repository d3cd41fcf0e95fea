"""One process at a time goes on with a run, and a start that is refused leaves nothing that could be gone on with."""

from __future__ import annotations

import signal
import subprocess

from core import storage
from factory.run_folder import LOCK
from tests.local.conftest import Project


def test_a_start_that_is_refused_leaves_no_folder_and_latest_as_it_was(project: Project) -> None:
    refused = project.here("run", "tiny.yaml", "--set", "data.source=npz", "--set", "data.data_dir=missing")
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

    def holding() -> subprocess.Popen[str]:
        process = start("tiny.yaml", "--resume")
        while str(process.pid) not in (run.folder / LOCK).read_text():
            assert process.poll() is None
        return process

    def stop(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 130
        assert project.latest().status == "failed"

    stop(holding())  # as early as a reader of the lock can
    first = holding()
    second = project.here("run", "--resume", run.id)
    assert second.returncode == 2
    assert f"process {first.pid} holds it" in second.stderr
    assert second.stderr.count("\n") == 1
    assert project.json("show", run.id)["status"] == "running"
    stop(first)


def test_a_resumed_run_whose_job_was_edited_goes_on_as_it_began_and_says_so(project: Project) -> None:
    assert project.call("run", "tiny.yaml", "--set", "sample.seed=666").returncode == 1
    job = project.folder / "tiny.yaml"
    job.write_text(job.read_text().replace("batch_size: 32", "batch_size: 64"))
    run = project.latest()
    again = project.call("run", "tiny.yaml", "--resume")
    assert f"note: tiny.yaml differs from what {run.id} began with (sample.seed 666 -> 0, " in again.stderr
    assert "train.batch_size 32 -> 64" in again.stderr
    assert "to run the job as it is now: textdiffusion run tiny.yaml" in again.stderr
    assert project.latest().facts["config"]["train"]["batch_size"] == 32
