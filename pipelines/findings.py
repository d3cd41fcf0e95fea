"""What a check before a run found: one line, and whether the run must not start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ME = "user:$(gcloud config get account)"
"""Whoever types a command, as a member of a policy."""


@dataclass(frozen=True)
class Finding:
    """`problem`: the run would fail or cost more than it may. Otherwise a note. `mend` is the command that mends it."""

    text: str
    problem: bool = True
    mend: str = ""


Check = dict[str, Any]
"""A row of `doctor`: {"check", "state": ok | missing | optional, "found", "mend"}."""


def checked(name: str, good: bool, seen: object, mend: str, *, needed: bool = True) -> Check:
    """A row of `doctor`: what was looked at, what was seen, and how to mend it if that is not good."""
    state = "ok" if good else ("missing" if needed else "optional")
    return {"check": name, "state": state, "found": str(seen), "mend": "" if good else mend}
