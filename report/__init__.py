"""The report of a run: one HTML file with everything inline that opens anywhere, without a network.

    from report import build
    build(Path("report.html"), dataset=..., judge=..., model=..., samples=..., evaluation=..., run=...)

It reads only what the steps left behind; whatever is missing is left out with a quiet note. Needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from core import storage
from report.artifacts import Folders, read
from report.page import render

__all__ = ["build"]


def build(out: Path, run: dict[str, Any] | None = None, **folders: Unpack[Folders]) -> Path:
    """Write the report of one run to the file `out` and return its path.

    The folders are the artifact directories of the steps, `run` is the content of run.json. Any of them may be
    missing, incomplete or broken. Raises OSError if `out` cannot be written.
    """
    out = Path(out)
    storage.write_bytes(out, render(read(run, **folders)).encode())
    return out
