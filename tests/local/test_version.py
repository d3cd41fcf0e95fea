"""Lineage names the commit of this code, and of no other."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from local.version import code_version


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def package(root: Path) -> Path:
    (root / "core").mkdir(parents=True)
    (root / "core" / "__init__.py").write_text("")
    return root


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit and nothing of this package in it."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "README").write_text("another project")
    (tmp_path / ".gitignore").write_text("/core/\n/.venv/\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_the_commit_is_named_where_the_repository_is_its_own(tmp_path: Path) -> None:
    root = package(tmp_path)
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "first")
    commit = git(root, "rev-parse", "HEAD")
    assert code_version(root) == commit
    (root / "core" / "__init__.py").write_text("x = 1")
    assert code_version(root) == f"{commit}-dirty"


def test_the_commit_of_a_repository_around_is_not_named(repository: Path) -> None:
    assert code_version(package(repository / ".venv" / "lib" / "site-packages")).startswith("content-")
    assert code_version(package(repository / "vendor")).startswith("content-")


def test_the_commit_of_a_repository_that_does_not_hold_the_package_is_not_named(repository: Path) -> None:
    assert code_version(package(repository)).startswith("content-")


def test_the_repository_of_a_hook_is_not_asked(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert code_version(package(tmp_path / "elsewhere")).startswith("content-")
