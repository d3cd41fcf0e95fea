"""The report of a run: one HTML file with everything inline that opens anywhere, without a network.

    from report import build
    build(Path("report.html"), dataset=..., judge=..., model=..., samples=..., evaluation=..., run=...)

It reads only what the steps left behind; whatever is missing is left out with a quiet note. Needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core import storage
from report.artifacts import read
from report.page import render

__all__ = ["build"]


def build(
    out: Path,
    *,
    dataset: Path | None = None,
    judge: Path | None = None,
    model: Path | None = None,
    autoregressive: Path | None = None,
    samples: Path | None = None,
    evaluation: Path | None = None,
    search: Path | None = None,
    run: dict[str, Any] | None = None,
) -> Path:
    """Write the report of one run to the file `out` and return its path.

    The folders are the artifact directories of the steps, `run` is the content of run.json. Any of them may be
    missing, incomplete or broken. Raises OSError if `out` cannot be written.
    """
    found = read(
        run,
        dataset=dataset,
        judge=judge,
        model=model,
        autoregressive=autoregressive,
        samples=samples,
        evaluation=evaluation,
        search=search,
    )
    out = Path(out)
    storage.write_bytes(out, render(found).encode())
    return out
