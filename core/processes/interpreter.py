"""A Python process of ours: it runs a module of this code, whatever lies in the current folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

SPIN = "30000"
"""Turns for which a thread that waits for others spins before it sleeps: tens of microseconds. OpenMP's own choice, to
spin on, took two thirds of the speed beside other work; to sleep at once took half of it from small networks on an idle
machine."""
_ROOT = str(Path(__file__).parents[2])


def program(module: str, *arguments: str) -> list[str]:
    """The command that runs `module` in a process of its own."""
    return [sys.executable, "-P", "-m", module, *arguments]  # -P: a copy.py here is no module


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """`base` with this code on the path, before what else is there, for the process and those that it starts."""
    own = [part for part in base.get("PYTHONPATH", "").split(os.pathsep) if part]
    return {**waiting(base), **base, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join([_ROOT, *own])}


def waiting(base: Mapping[str, str]) -> dict[str, str]:
    """How threads wait (GNU's OpenMP, read when torch is imported), for what lays `base`, the user's own, over it."""
    return {} if "OMP_WAIT_POLICY" in base else {"GOMP_SPINCOUNT": SPIN}
