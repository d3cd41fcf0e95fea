"""A Python process of ours: it runs a module of this code, whatever lies in the current folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait for others sleep instead of spinning, which beside other work took a third of the speed. OpenMP
reads it when torch is imported."""
_ROOT = str(Path(__file__).parents[2])


def program(module: str, *arguments: str) -> list[str]:
    """The command that runs `module` in a process of its own."""
    return [sys.executable, "-P", "-m", module, *arguments]  # -P: a copy.py here is no module


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """`base` with this code on the path, before what else is there, for the process and those that it starts."""
    own = [part for part in base.get("PYTHONPATH", "").split(os.pathsep) if part]
    return {**PASSIVE, **base, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join([_ROOT, *own])}
