"""`doctor --inside`: whether the container that this runs in can run steps."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from core.architectures import runs_on
from core.printable import printable_json, say

Check = dict[str, str]


def checks() -> list[Check]:
    """Each check as {"check", "state": ok | missing, "found"}."""
    wanted: dict[str, Callable[[], str]] = {
        "python": _python,
        "user": _user,
        "steps": _steps,
        "torch": _torch,
        "scratch": _scratch,
        "work": _work,
    }
    results = []
    for name, look in wanted.items():
        try:
            results.append({"check": name, "state": "ok", "found": look()})
        except Exception as error:  # whatever it is, it is what a person came here to see
            results.append({"check": name, "state": "missing", "found": f"{type(error).__name__}: {error}"})
    return results


def report(*, as_json: bool = False) -> int:
    """Prints the checks; 1 if something is missing, otherwise 0."""
    results = checks()
    if as_json:
        say(printable_json(json.dumps(results)), lines=True)
    else:
        say("\n".join(f"{row['check']:8} {row['state']:8} {row['found']}" for row in results), lines=True)
    return int(any(row["state"] != "ok" for row in results))


def _python() -> str:
    if not (3, 11) <= sys.version_info < (3, 14):
        raise RuntimeError(f"{sys.version.split()[0]}; needed: 3.11 to 3.13")
    return sys.version.split()[0]


def _user() -> str:
    if os.getuid() == 0:
        raise PermissionError("this is root; steps need no rights: run the image as its own user")
    return str(os.getuid())


def _steps() -> str:
    from components.step import load
    from factory.steps import STEPS

    return f"{len([load(name) for name in STEPS])} import"


def _torch() -> str:
    import torch

    if torch.ones(2, 2).sum().item() != 4:
        raise RuntimeError("2 x 2 ones do not sum to 4")
    if not torch.cuda.is_available():
        return f"{torch.__version__} on CPU"
    built, name = torch.cuda.get_arch_list(), torch.cuda.get_device_name()
    capability = torch.cuda.get_device_capability()
    if not runs_on(capability, built):
        number = "".join(map(str, capability))
        raise RuntimeError(f"{name} is sm_{number}, and torch {torch.__version__} has kernels for {', '.join(built)}")
    return f"{torch.__version__} on {name}"


def _scratch() -> str:
    with tempfile.NamedTemporaryFile() as file:
        return str(Path(file.name).parent)


def _work() -> str:
    work = os.environ.get("TEXTDIFFUSION_WORK", "")
    if not work or "://" in work:
        return work or "not set"
    with tempfile.NamedTemporaryFile(dir=work):
        return work
