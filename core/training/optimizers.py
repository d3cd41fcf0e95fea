"""Optimizers by configuration, and their state as flat tensors for safetensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.config import TrainConfig
from core.training.eager import AdamW
from core.training.muon import Muon


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are optimized alike; `scale` multiplies the learning rate."""

    parameters: list[nn.Parameter]
    scale: float = 1.0
    weight_decay: bool = False
    matrices: bool = False  # hidden weight matrices, which Muon may take


def default_groups(model: nn.Module) -> list[ParameterGroup]:
    """Weights of two and more dimensions decay; biases, gains and scales do not."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        ParameterGroup([p for p in trainable if p.ndim >= 2], weight_decay=True),
        ParameterGroup([p for p in trainable if p.ndim < 2]),
    ]


class Optimizers:
    """AdamW for everything, or Muon (Jordan et al. 2024) for hidden matrices and AdamW for the rest."""

    def __init__(self, groups: Sequence[ParameterGroup], config: TrainConfig, device: torch.device) -> None:
        adam: list[dict[str, Any]] = []
        muon: list[dict[str, Any]] = []
        for group in groups:
            if not group.parameters:
                continue
            by_muon = config.optimizer == "muon" and group.matrices
            (muon if by_muon else adam).append(
                {
                    "params": group.parameters,
                    "peak": group.scale * (config.muon_learning_rate if by_muon else config.learning_rate),
                    "weight_decay": config.weight_decay if group.weight_decay else 0.0,
                }
            )
        self.parts: dict[str, torch.optim.Optimizer] = {}
        if adam:
            on_gpu = device.type == "cuda"  # where a step may be recorded
            fused = on_gpu or device.type == "cpu"
            self.parts["adamw"] = AdamW(adam, lr=1.0, betas=config.betas, fused=fused, capturable=on_gpu)
        if muon:
            self.parts["muon"] = Muon(muon, lr=1.0)

    def set_learning_rate(self, factor: float | Tensor) -> None:
        """`factor` in [0, 1] times each group's peak; a number, or one on the device."""
        for optimizer in self.parts.values():
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak"]

    def zero_grad(self) -> None:
        for optimizer in self.parts.values():
            optimizer.zero_grad(set_to_none=True)

    def step(self, bad: Tensor) -> None:
        """One step, unless `bad`: then nothing changes.

        A CPU knows that at once. A GPU is not waited for: every optimizer reads it there, as its `found_inf`.
        """
        if bad.device.type == "cpu" and bad:
            return
        for optimizer in self.parts.values():
            optimizer.found_inf = None if bad.device.type == "cpu" else bad.float()  # type: ignore[attr-defined]
            optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """State tensors as `adamw.<parameter index>.<name>`."""
        return {
            f"{part}.{index}.{name}": torch.as_tensor(value)
            for part, optimizer in self.parts.items()
            for index, state in optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        states: dict[str, dict[int, dict[str, Tensor]]] = {part: {} for part in self.parts}
        for key, value in tensors.items():
            part, index, name = key.split(".", 2)
            states[part].setdefault(int(index), {})[name] = value
        for part, optimizer in self.parts.items():
            optimizer.load_state_dict({"state": states[part], "param_groups": optimizer.state_dict()["param_groups"]})
