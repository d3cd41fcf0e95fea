"""torch.compile for a training (`train.compile`): what it needs of the machine, and how many forms of a network it
knows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from core.errors import UserError

FORMS = 64  # diffusion of text has one for each length of a block, with and without text before it, and with a guess
FASTER_LAYOUT: dict[str, Any] = {
    "force_layout_optimization": True
}  # small convolutions in channels-last too, as they are computed


def compiled(model: nn.Module, device: torch.device) -> Callable[..., Any]:
    """`model`, whose calls are compiled when they are first made.

    Raises:
        UserError: this machine has no compiler for what torch writes: C on a GPU (Triton's launcher), C++ on a CPU.
    """
    on_gpu = device.type == "cuda"
    variable, names = ("CC", ("gcc", "clang")) if on_gpu else ("CXX", ("g++", "clang++"))
    if variable not in os.environ and not any(map(shutil.which, names)):
        raise UserError(
            f"train.compile: torch needs a compiler, {' or '.join(names)} (or the variable {variable}), and finds none;"
            " install one, or set train.compile: false"
        )
    settings: Any = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, FORMS)  # beyond it a form runs as it is, with a warning
    return torch.compile(model, options=FASTER_LAYOUT if on_gpu else None)
