"""`make push` asks for no right that the setup page does not give."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.compile import ROOT

SETTINGS = """
project: demo
region: europe-west4
bucket: gs://demo-bucket
build_account: build@demo.iam.gserviceaccount.com
image: europe-west4-docker.pkg.dev/demo/textdiffusion/textdiffusion
"""


@pytest.fixture
def typed(tmp_path: Path) -> Path:
    """What a stand-in for gcloud was called with, a word a line."""
    program = tmp_path / "bin" / "gcloud"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$PWD" "$@" > {tmp_path}/typed\nexit 7\n')
    program.chmod(0o755)
    return tmp_path / "typed"


def push(folder: Path, settings: str) -> subprocess.CompletedProcess[str]:
    (folder / "textdiffusion.yaml").write_text(settings)
    command = [
        sys.executable,
        "-m",
        "textdiffusion",
        "image",
        "--push",
        "--revision",
        "abc",
        "--source",
        "https://x/y,z",
    ]
    environment = {"PATH": f"{folder}/bin", "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_source_account_and_project_are_those_of_the_settings(tmp_path: Path, typed: Path) -> None:
    done = push(tmp_path, SETTINGS)
    assert done.returncode == 7, done.stderr  # gcloud's own
    where, *words = typed.read_text().splitlines()
    assert where == str(ROOT)
    assert words[:2] == ["builds", "submit"]
    assert {
        "--project=demo",
        "--gcs-source-staging-dir=gs://demo-bucket/build/source",
        "--service-account=projects/demo/serviceAccounts/build@demo.iam.gserviceaccount.com",
    } <= set(words)
    substitutions = next(word for word in words if word.startswith("--substitutions="))
    image = done.stdout.strip()
    assert substitutions == f"--substitutions=^|^_IMAGE={image}|_REVISION=abc|_SOURCE=https://x/y,z"


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("build_account", "build_account is not set: write `build_account: ...` into textdiffusion.yaml"),
        ("bucket", "bucket is not set"),
        ("project", "project is not set"),
        ("image", "names no registry"),
    ],
)
def test_what_is_not_set_is_one_line_and_nothing_is_asked(
    tmp_path: Path, typed: Path, missing: str, words: str
) -> None:
    done = push(tmp_path, re.sub(rf"^{missing}:.*$", "", SETTINGS, flags=re.M))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert words in done.stderr
    assert not typed.exists()


def test_without_gcloud_it_is_said(tmp_path: Path) -> None:
    done = push(tmp_path, SETTINGS)
    assert done.returncode == 2
    assert "image --push needs gcloud" in done.stderr


def test_the_setup_page_gives_the_rights_that_are_used() -> None:
    page = (ROOT / "docs" / "vertex-setup.md").read_text()
    for words in (
        r"gs://\$BUCKET --member=serviceAccount:\$BUILD --role=roles/storage.objectViewer",  # reads the staged source
        r"--member=serviceAccount:\$BUILD --role=roles/artifactregistry.writer",
        r"--member=serviceAccount:\$BUILD --role=roles/logging.logWriter",
        r"binding \$BUILD --project=\$PROJECT --member=\$ME --role=roles/iam.serviceAccountUser",
        r"binding \$BUILD --project=\$PROJECT --member=serviceAccount:\$CI --role=roles/iam.serviceAccountUser",
        r"gs://\$BUCKET --member=\$ME --role=roles/storage.objectUser",  # stages the source
    ):
        assert re.search(words, page), words
