"""Asked for a GPU and none there: stop, never work on the CPU at a GPU's price."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from core.errors import UserError

EXPECTED, IN_POD = "TEXTDIFFUSION_GPUS", "TEXTDIFFUSION_POD_GPUS"
"""Environment variables: how many GPUs the machine of a step has. The second counts in a pod of Kubernetes alone,
because what is compiled for Kubeflow runs on laptops too."""
_DRIVER = Path("/proc/driver/nvidia/version")


def expected(environment: Mapping[str, str] = os.environ) -> int:
    """How many GPUs were asked for; 0: nobody said.

    Raises:
        UserError: the variable is no number.
    """
    text = environment.get(EXPECTED, "")
    if not text and "KUBERNETES_SERVICE_HOST" in environment:
        text = environment.get(IN_POD, "")
    if text and not text.isdecimal():
        raise UserError(f"{EXPECTED}: found {text!r}; allowed: whole numbers from 0")
    return int(text or 0)


def require_gpus(environment: Mapping[str, str] = os.environ) -> None:
    """Sees to it that torch can use as many GPUs as were asked for.

    Raises:
        UserError: it cannot; says driver, CUDA and what torch was built for.
    """
    wanted = expected(environment)
    if not wanted:
        return
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    flags = torch._C._cuda_getArchFlags() if torch.version.cuda else None  # get_arch_list() is empty without a driver
    built = (flags or "").split()
    capabilities = [torch.cuda.get_device_capability(number) for number in range(count)]
    usable = [capability for capability in capabilities if supported(capability, built)]
    if len(usable) < wanted:
        kinds = ", ".join(f"sm_{major}{minor}" for major, minor in capabilities) or "none"
        raise UserError(
            f"{wanted} GPU{'s' if wanted > 1 else ''} asked for, {len(usable)} usable (seen: {kinds}); "
            f"driver {driver()}, torch {torch.__version__} with CUDA {torch.version.cuda or 'none'}"
            f" for {' '.join(built) or 'no GPU'}; a newer driver, another machine, or an image for this one is needed"
        )


def supported(capability: tuple[int, int], built: list[str]) -> bool:
    """Whether code built for `built` (sm_86, compute_90) runs on a GPU of `capability`: the same major number and no
    higher minor one, or an intermediate form of a lower one."""
    for name in built:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name)
        if match:
            major, minor = int(match[2]), int(match[3])
            same = match[1] == "sm" and major == capability[0] and minor <= capability[1]
            if same or (match[1] == "compute" and (major, minor) <= capability):
                return True
    return False


def driver(version: Path = _DRIVER) -> str:
    """The version of NVIDIA's driver; `none` if there is none."""
    try:
        match = re.search(r"\b\d+\.\d+(\.\d+)?\b", version.read_text(errors="replace"))
    except OSError:
        return "none"
    return match[0] if match else "unknown"
