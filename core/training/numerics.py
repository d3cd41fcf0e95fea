"""Switches of torch for a whole training or sampling: the same numbers every time, and fp32 that is fp32.

A CPU gives the same weights every time by itself (same threads, same instructions). CUDA does not: convolutions,
attention and sums pick algorithms by speed, and some add in the order in which threads arrive.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from core.training.precision import Precision

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS gives equal products only with workspaces of fixed size


@contextmanager
def switched(precision: Precision, device: torch.device, *, deterministic: bool = False) -> Iterator[None]:
    """Sets what `precision` and `deterministic` need on a GPU, and puts everything back at the end.

    With `deterministic` an operation that has no deterministic form raises RuntimeError instead of differing. It costs
    cuDNN's choice of the fastest convolution, sorted scatters and a slower attention backward pass.
    """
    exact = precision.named and precision.dtype is None
    if device.type != "cuda" or not (exact or deterministic):
        yield
        return
    filling: Any = torch.utils.deterministic
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        filling.fill_uninitialized_memory,
        (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32),
    )
    try:
        if deterministic:
            os.environ.setdefault(WORKSPACE, ":4096:8")
            torch.use_deterministic_algorithms(True)
            filling.fill_uninitialized_memory = False  # a help in debugging that costs a kernel for each new tensor
            cudnn.deterministic, cudnn.benchmark = True, False
        if exact:
            cudnn.allow_tf32 = matmul.allow_tf32 = False
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        filling.fill_uninitialized_memory = before[2]
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before[3]
