"""Muon (Jordan et al. 2024): momentum whose matrices are orthogonalised, in bf16 where the hardware multiplies it.

torch.optim.Muon does so in bf16 always, which processors without it emulate (35 times slower on AVX2), and matrix by
matrix, so that a GPU waits for the launches of a small network.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core.training.eager import stay_eager
from core.training.precision import has_native_bf16

A, B, C = 3.4445, -4.7750, 2.0315  # of the quintic A x + B x^3 + C x^5 (Jordan et al. 2024)
TOGETHER = 2**24  # elements that are stepped at once, which bounds the temporary memory


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """About U V^T of each matrix U S V^T, its singular values brought near 1 by a quintic Newton-Schulz iteration.

    Args:
        matrices: [count, rows, columns]
    """
    x = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp_min(1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    # A Gram matrix rounded to bf16 may have negative eigenvalues, which the iteration on it would blow up.
    wide = x.shape[2] > 2 * x.shape[1] and x.dtype != torch.bfloat16
    x = _iterate_on_gram(x, steps) if wide else _iterate(x, steps)
    return x.mT if tall else x


def _iterate(x: Tensor, steps: int) -> Tensor:
    """x <- (A + B G + C G^2) x with G = x x^T."""
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x


def _iterate_on_gram(x: Tensor, steps: int) -> Tensor:
    """The same on G alone, which is small where x is wide: P = A + B G + C G^2 commutes with G, so G <- P G P."""
    gram = x @ x.mT
    product = polynomial = _polynomial(gram)
    for _ in range(steps - 1):
        gram = polynomial @ gram @ polynomial
        polynomial = _polynomial(gram)
        product = polynomial @ product
    return product @ x


def _polynomial(gram: Tensor) -> Tensor:
    """A + B G + C G^2"""
    product = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
    product.diagonal(dim1=1, dim2=2).add_(A)
    return product


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; for weight matrices of hidden layers.

    A convolution [out, in, k, k] is the matrix [out, in k k].

    Args:
        params: matrices, or groups of them with their own `lr` and `weight_decay`.
        lr: the spectral norm of a step on a matrix that is not tall.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        stay_eager()
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.found_inf: Tensor | None = None  # 1 on the device: the next step changes nothing (as of torch's AdamW)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim < 2:
                    raise ValueError(f"Muon takes matrices, found the shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step. Decay is decoupled, as in AdamW."""
        for group in self.param_groups:
            for parameters in _portions([p for p in group["params"] if p.grad is not None]):
                self._step(parameters, group["lr"], group["momentum"], group["weight_decay"])

    def _step(self, parameters: list[Tensor], lr: float | Tensor, momentum: float, weight_decay: float) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        gradient = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        before = torch.cat([buffer.flatten() for buffer in buffers])
        good: Tensor | float = 1.0
        if self.found_inf is not None:
            good = 1 - self.found_inf
            gradient = gradient.masked_fill(self.found_inf > 0, 0)
        average = torch.lerp(before, gradient, 1 - momentum)
        steps = _directions(torch.lerp(gradient, average, momentum), parameters, widen=gradient.is_cuda)
        if self.found_inf is not None:
            average = torch.where(self.found_inf > 0, before, average)
        torch._foreach_copy_(buffers, _as_shaped(average, parameters))
        torch._foreach_mul_(parameters, 1 - lr * weight_decay * good)
        torch._foreach_add_(parameters, _as_shaped(steps * (-lr * good), parameters))


def _portions(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """As many parameters at once as memory allows; those of one shape, and of one smaller side, are neighbours."""
    portion: list[Tensor] = []
    for parameter in sorted(parameters, key=lambda p: (min(_sides(p)), _sides(p))):
        if portion and sum(p.numel() for p in portion) + parameter.numel() > TOGETHER:
            yield portion
            portion = []
        portion.append(parameter)
    if portion:
        yield portion


def _directions(updates: Tensor, parameters: Sequence[Tensor], *, widen: bool) -> Tensor:
    """The orthogonalised matrices of flat `updates` [N] of `parameters`, flat, as long as a step of Muon takes them.

    Matrices of one shape go together; with `widen` all of one smaller side, widened by zeros, which the iteration
    leaves alone: for a GPU, where small matrices cost launches rather than arithmetic.
    """
    steps = torch.empty_like(updates)
    stacks: dict[Hashable, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    start = 0
    for (rows, columns), alike in groupby(parameters, _sides):
        shape = (len(list(alike)), rows, columns)
        part = slice(start, start + math.prod(shape))
        stacks[min(rows, columns) if widen else shape].append((updates[part].view(shape), steps[part].view(shape)))
        start = part.stop
    for stack in stacks.values():
        matrices, out = [_wide(m) for m, _ in stack], [_wide(s) for _, s in stack]
        width = max(m.shape[2] for m in matrices)
        joined = torch.cat([F.pad(_fast(m), (0, width - m.shape[2])) for m in matrices])
        for step, direction in zip(out, orthogonalise(joined).split([len(m) for m in matrices]), strict=True):
            step.copy_(direction[:, :, : step.shape[2]])
        for _, step in stack:
            step.mul_(max(1.0, step.shape[1] / step.shape[2]) ** 0.5)
    return steps


def _wide(matrices: Tensor) -> Tensor:
    """[count, rows, columns] with rows <= columns."""
    return matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices


def _sides(parameter: Tensor) -> tuple[int, int]:
    return parameter.shape[0], parameter[0].numel()


def _as_shaped(flat: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    parts = flat.split([p.numel() for p in parameters])
    return [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]


def _fast(updates: Tensor) -> Tensor:
    """`updates` in the number format in which their directions are found: five iterations need no more than bf16."""
    return updates.bfloat16() if updates.dtype == torch.float32 and has_native_bf16(updates.device) else updates
