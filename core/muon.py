"""Muon (Jordan et al. 2024): momentum whose matrices are orthogonalised, in bf16 where the hardware multiplies it.

torch.optim.Muon does so in bf16 always, which processors without it emulate: 35 times slower on AVX2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from core.precision import has_native_bf16


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """About U V^T of matrix = U S V^T, its singular values brought near 1 by a quintic Newton-Schulz iteration."""
    x = matrix / matrix.norm().clamp_min(1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if tall else x


def _fast(update: Tensor) -> Tensor:
    """`update` in the number format in which its direction is found: five iterations need no more than bf16."""
    return update.bfloat16() if update.dtype == torch.float32 and has_native_bf16(update.device) else update


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; for weight matrices of hidden layers.

    A convolution [out, in, k, k] is the matrix [out, in k k].

    Args:
        params: matrices, or groups of them with their own `lr` and `weight_decay`.
        lr: the spectral norm of a step on a matrix that is not tall.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim < 2:
                    raise ValueError(f"Muon takes matrices, found the shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step. Decay is decoupled, as in AdamW."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                buffer = state["momentum_buffer"]
                buffer.lerp_(parameter.grad, 1 - momentum)
                update = orthogonalise(_fast(parameter.grad.lerp(buffer, momentum)).flatten(1))
                tall = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                update = update.view_as(parameter).to(parameter.dtype)
                parameter.mul_(1 - lr * group["weight_decay"]).add_(update, alpha=-lr * tall)
