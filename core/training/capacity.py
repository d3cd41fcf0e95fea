"""Whether a network fits this machine, asked before memory is taken for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from core.errors import UserError
from core.processes.limits import memory_bytes

MAX_PARAMETERS = 4_000_000_000  # the files of one model are read whole; see MAX_WEIGHT_BYTES


def build_within_memory(build: Callable[[], nn.Module], where: str) -> nn.Module:
    """`build()`, unless it asks for more weights than this machine could hold.

    The network is first built without storage (on torch's meta device), which costs no memory whatever its size.

    Args:
        build: makes the network.
        where: the section of the configuration, for the error.

    Raises:
        UserError: it has too many parameters.
    """
    with torch.device("meta"), _Uninitialised():
        parameters = sum(p.numel() for p in build().parameters())
    have = memory_bytes()
    if parameters > MAX_PARAMETERS or 4 * parameters > have:
        raise UserError(
            f"{where}: asks for {parameters:,} parameters, {4 * parameters / 1e9:,.1f} GB of weights; this machine has"
            f" {have / 1e9:,.1f} GB and at most {MAX_PARAMETERS:,} are allowed: make the network smaller"
        )
    return build()


class _Uninitialised(TorchFunctionMode):
    """Weights without values: to fill them on the meta device torch would import its compiler, for seconds."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        named = named or {}
        if getattr(function, "__module__", "") == "torch.nn.init":
            return arguments[0] if arguments else named["tensor"]
        if function in (torch.linspace, torch.logspace):
            named = {**named, "device": "cpu"}
        return function(*arguments, **named)


def require_memory_to_train(model: nn.Module, device: torch.device, where: str) -> None:
    """Raises UserError if weights, average, gradients and two moments of `model` are more than `device` has."""
    parameters = sum(p.numel() for p in model.parameters())
    need = 4 * 5 * parameters
    have = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else memory_bytes()
    if need > have:
        raise UserError(
            f"{where}: training {parameters:,} parameters needs {need / 1e9:,.1f} GB besides the activations;"
            f" {device.type} has {have / 1e9:,.1f} GB: make the network smaller, or choose a larger machine"
        )


def fits_beside_training(size: int, device: torch.device) -> bool:
    """Whether data of `size` bytes may stay on a GPU: where they take an eighth of its memory at most."""
    return size <= torch.cuda.get_device_properties(device).total_memory // 8
