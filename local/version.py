"""Which version of the code a run was made by."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from core.printable import say
from pipelines import compile as compiler


def code_version(root: Path = compiler.ROOT) -> str:
    """The git commit, with -dirty if there are changes; the hash of the content, where `root` is not the top of a
    repository that holds this package: a commit of another project, that it lies in, says nothing about it."""
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
        if Path(top).resolve() == root.resolve():
            _git(root, "ls-files", "--error-unmatch", "core/__init__.py")
            return _git(root, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        pass
    return f"content-{compiler.content_tag(root)}"


def _git(root: Path, *arguments: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # a hook's are another's
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, env=own).stdout.strip()


if __name__ == "__main__":
    say(code_version())
