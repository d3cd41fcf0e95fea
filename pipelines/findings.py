"""What a check before a run found: one line, and whether the run must not start."""

from __future__ import annotations

from dataclasses import dataclass

ME = "user:$(gcloud config get account)"
"""Whoever types a command, as a member of a policy."""


@dataclass(frozen=True)
class Finding:
    """`problem`: the run would fail or cost more than it may. Otherwise a note. `mend` is the command that mends it."""

    text: str
    problem: bool = True
    mend: str = ""
