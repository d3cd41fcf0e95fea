"""Muon (Jordan et al. 2024): momentum whose matrices are orthogonalised, in bf16 where the hardware multiplies it.

torch.optim.Muon does so in bf16 always, which processors without it emulate (35 times slower on AVX2), and matrix by
matrix, so that a GPU waits for the launches of a small network.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from core.training.eager import stay_eager
from core.training.precision import has_native_bf16

A, B, C = 3.4445, -4.7750, 2.0315  # of the quintic A x + B x^3 + C x^5 (Jordan et al. 2024)
TOGETHER = 2**24  # elements that are orthogonalised at once, which bounds the temporary memory


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

    A convolution [out, in, k, k] is the matrix [out, in k k]. Matrices of one shape go together.

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
            for parameters in _of_one_shape([p for p in group["params"] if p.grad is not None]):
                self._step(parameters, group["lr"], group["momentum"], group["weight_decay"])

    def _step(self, parameters: list[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        before = None if self.found_inf is None else torch.stack(buffers)
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        updates = torch.stack([u.flatten(1) for u in torch._foreach_lerp(gradients, buffers, momentum)])
        directions = orthogonalise(_fast(updates)).to(updates.dtype)
        tall = max(1.0, updates.shape[1] / updates.shape[2]) ** 0.5
        if before is None or self.found_inf is None:
            torch._foreach_mul_(parameters, 1 - lr * weight_decay)
        else:
            bad = self.found_inf > 0
            torch._foreach_copy_(buffers, torch.where(bad, before, torch.stack(buffers)).unbind())
            torch._foreach_mul_(parameters, 1 - lr * weight_decay * ~bad)
            directions = directions.masked_fill(bad, 0)
        steps = [d.view_as(p) for d, p in zip(directions, parameters, strict=True)]
        torch._foreach_add_(parameters, steps, alpha=-lr * tall)


def _of_one_shape(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The parameters whose matrices have one shape, together as far as memory allows, in the order of their first."""
    shapes: dict[tuple[torch.Size, torch.dtype], list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        shapes[parameter.shape, parameter.dtype].append(parameter)
    for alike in shapes.values():
        size = max(1, TOGETHER // alike[0].numel())
        yield from (alike[start : start + size] for start in range(0, len(alike), size))


def _fast(updates: Tensor) -> Tensor:
    """`updates` in the number format in which their directions are found: five iterations need no more than bf16."""
    return updates.bfloat16() if updates.dtype == torch.float32 and has_native_bf16(updates.device) else updates
