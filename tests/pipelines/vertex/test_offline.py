"""`deploy --dry-run --offline`, which pull requests run: no service, no credentials, and what can be known without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.compile import ROOT

SETTINGS = """
project: demo
region: us-central1
bucket: demo-bucket
service_account: pipelines@demo.iam.gserviceaccount.com
image: us-central1-docker.pkg.dev/demo/textdiffusion/textdiffusion
"""
DEAF = """
import socket


def refuse(*_, **__):
    raise AssertionError("a connection was made")


socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
"""


def dry_run(folder: Path, *arguments: str, offline: bool = True) -> subprocess.CompletedProcess[str]:
    """In a process that has no credentials and may not connect."""
    (folder / "textdiffusion.yaml").write_text(SETTINGS)
    (folder / "deaf").mkdir()
    (folder / "deaf" / "sitecustomize.py").write_text(DEAF)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": f"{folder}/deaf:{ROOT}"}
    environment["NO_GCE_CHECK"] = "true"
    command = [sys.executable, "-m", "textdiffusion", "deploy", *arguments, "--dry-run"]
    command += ["--offline"] if offline else []
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def test_a_job_is_checked_and_estimated_without_a_connection(tmp_path: Path) -> None:
    done = dry_run(tmp_path, "mnist-training", "--set", "data.data_dir=gs://demo-bucket/data", "--max-cost", "5")
    assert done.returncode == 0, done.stderr
    assert re.match(r"estimate: (about|at most) \d+\.\d\d USD", done.stdout)


def test_without_credentials_a_dry_run_checks_what_needs_none_and_says_so(tmp_path: Path) -> None:
    done = dry_run(tmp_path, "digits", offline=False)
    assert done.returncode == 0, done.stderr
    assert "note: no credentials on this machine: what only the services know was not checked" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("digits", "--max-cost", "0.1"), "--max-cost 0.1: the run is estimated at"),
        (("digits", "--label", "Team=x"), "labels: Team='x'"),
    ],
)
def test_problems_that_need_no_service_are_found(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = dry_run(tmp_path, *arguments)
    assert done.returncode == 2, done.stdout
    assert words in done.stderr


def test_the_page_for_a_repositorys_ci_asks_for_no_token_on_pull_requests() -> None:
    import yaml

    page = (ROOT / "docs" / "how-to" / "your-ci.md").read_text()
    block = re.search(r"```yaml.*?\n(.*?)```", page, re.S)
    assert block
    assert "secrets." not in block[1]
    workflow = yaml.safe_load(block[1])
    assert workflow["permissions"] == {"contents": "read"}
    check, deploy = workflow["jobs"]["check"], workflow["jobs"]["deploy"]
    assert "permissions" not in check
    assert not any("auth" in str(step.get("uses", "")) for step in check["steps"])
    assert deploy["permissions"]["id-token"] == "write"
    assert "github.ref == 'refs/heads/main'" in deploy["if"]
    assert any("--dry-run --offline" in step.get("run", "") for step in check["steps"])
