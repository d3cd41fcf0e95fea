"""Which version of the code a run was made by."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipelines import compile as compiler


def code_version(root: Path = compiler.ROOT) -> str:
    """The git commit, with -dirty if there are changes; without git, the hash of the content."""
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return f"content-{compiler.content_tag()}"
