"""What this machine has for local runs, and the command that mends what is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipelines.findings import Check, checked

_PACKAGES = ("kfp", "torch", "pydantic", "safetensors", "fsspec")
_FREE_GB = 5


def checks() -> list[Check]:
    """Each check as {"check", "state": ok | missing | optional, "found", "mend"}."""
    results = [_python(), *(_package(name) for name in _PACKAGES), _accelerator(), _disk()]
    return [*results, _program("git", "code versions are commits"), _docker()]


def _python() -> Check:
    here = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    return checked("python", (3, 11) <= sys.version_info < (3, 14), here, "make setup PYTHON=/path/to/python3.12")


def _package(name: str) -> Check:
    try:
        installed = version(name)
    except PackageNotFoundError:
        return checked(name, False, "not installed", "make setup")
    good = name != "kfp" or installed.startswith("2.17.")
    return checked(name, good, installed, "pip install 'kfp>=2.17,<2.18'")


def _accelerator() -> Check:
    if shutil.which("nvidia-smi") is None:
        return checked("gpu", False, "none: training runs on the CPU", "not needed for small jobs", needed=False)
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    cards = _says(query).splitlines()
    if not cards:
        return checked("gpu", False, "nvidia-smi finds none: training runs on the CPU", "nvidia-smi", needed=False)
    built = _says([sys.executable, "-c", "import torch; print(torch.version.cuda or 'no', torch.cuda.is_available())"])
    version_of_cuda, _, usable = built.partition(" ")
    found = cards[0] if usable == "True" else f"{cards[0]}: torch, built for CUDA {version_of_cuda}, cannot use it"
    return checked("gpu", usable == "True", found, f"a driver for CUDA {version_of_cuda} or newer", needed=False)


def _says(command: list[str]) -> str:
    """What a program prints; nothing if it cannot be run or hangs, as nvidia-smi does with a broken driver."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return checked("disk", free > _FREE_GB, f"{free:.0f} GB free here", f"free {_FREE_GB} GB, or set `runs:` elsewhere")


def _program(name: str, why: str) -> Check:
    path = shutil.which(name)
    return checked(name, path is not None, path or f"not found: {why}", f"install {name}", needed=False)


def _docker() -> Check:
    program = _program("docker", "for --runner docker")
    if program["state"] != "ok":
        return program
    reached = subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True)
    return checked(
        "docker", reached.returncode == 0, reached.stdout.strip() or "no daemon", "start docker", needed=False
    )
