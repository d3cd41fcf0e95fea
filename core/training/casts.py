"""Weights in the number format of autocast: all copied at once, where autocast copies each when it meets it.

Autocast casts the weights of a layer one by one, once a forward pass, and once an evaluation where no gradients are
wanted; their gradients come back one by one too. A GPU starts a kernel for each. What is computed is the same, to the
last bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # whose weights autocast casts, whatever else it is asked for


class Casts:
    """Copies in `dtype` of the weights of a network's layers, to stand in for them; none where `dtype` is None.

    Only of layers that are exactly torch's: what a class of one's own does with its weights is not known. Weights that
    two modules share are left to autocast.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None) -> None:
        held = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
        self._places = [
            (module, name, weight)
            for module in model.modules()
            if dtype is not None and type(module) in LAYERS
            for name, weight in module.named_parameters(recurse=False)
            if weight.dtype == torch.float32 and held[id(weight)] == 1
        ]
        self._weights: list[Tensor] = [weight for _, _, weight in self._places]
        self._copies = [torch.empty_like(weight, dtype=dtype, requires_grad=False) for weight in self._weights]

    @torch.no_grad()
    def refresh(self) -> None:
        """Copies the weights as they are now."""
        if self._copies:
            torch._foreach_copy_(self._copies, self._weights)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network computes with the copies; gradients go to the weights, in their own format."""
        copies: Sequence[Any] = _Cast.apply(self._copies, *self._weights) if self._copies else ()
        try:
            for (module, name, _), copy in zip(self._places, copies, strict=True):
                module._parameters[name] = copy
            yield
        finally:
            for module, name, weight in self._places:
                module._parameters[name] = weight


@contextmanager
def cast(dtype: torch.dtype | None, *models: nn.Module | None) -> Iterator[None]:
    """Inside it `models` compute with copies of the weights that they have now."""
    with ExitStack() as stack:
        for model in models:
            if model is not None:
                copies = Casts(model, dtype)
                copies.refresh()
                stack.enter_context(copies.in_place())
        yield


class _Cast(torch.autograd.Function):
    """Copies in the place of weights; gradients of copies, all at once, in the format of the weights."""

    @staticmethod
    def forward(ctx: Any, copies: list[Tensor], *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(copy.detach() for copy in copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        known = [gradient for gradient in gradients if gradient is not None]
        full = [torch.empty_like(gradient, dtype=torch.float32) for gradient in known]
        if known:
            torch._foreach_copy_(full, known)
        rest = iter(full)
        return None, *(None if gradient is None else next(rest) for gradient in gradients)
