"""Numbers made on the host, on their way to a GPU."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """`values` of the host on `device`, without waiting for what a GPU is doing: by way of page-locked memory.

    `Tensor.to` would wait for all work that was asked of the GPU before.
    """
    device = torch.device(device)
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
