"""What training on one example costs, counted from the network itself: FLOP, operators, bytes kept for the gradient.

Networks run on torch's meta device, which computes shapes and no numbers: so any size is counted in a second on any
machine, the counts do not depend on what else runs there, and no fused kernel hides its products from the counter.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from core.images.config import ImageModel
from core.images.model import ImageShape, build_network
from core.text.autoregressive import Autoregressive
from core.text.config import TextModel
from core.text.denoiser import Diffusion
from core.text.objective import build, noisy_windows

STATE = 4 * 5  # bytes a parameter: weight, gradient, two moments of AdamW and the average, in float32


@dataclass(frozen=True)
class Work:
    """Of a training step: `flop` and `activations` (bytes, in float32) for each example, `operators` for the step.

    FLOP are those of matrix products and convolutions, forward and backward; operators are calls that do work, so
    about the kernels that a GPU starts; views and the optimizer are not among them.
    """

    parameters: int
    flop: float
    operators: float
    activations: float

    @property
    def state(self) -> int:
        """Bytes that training holds whatever the batch."""
        return STATE * self.parameters


@cache
def image_work(model: ImageModel, shape: ImageShape) -> Work:
    """Of an image model's training."""
    with torch.device("meta"):
        network = build_network(model, shape)

        def loss(count: int) -> Tensor:
            labels = torch.zeros(count, dtype=torch.long)
            return network(torch.zeros(count, *shape.size), torch.zeros(count), labels).square().mean()

        return _count(network, loss)[0]


@cache
def autoregressive_work(model: TextModel, vocabulary: int) -> Work:
    """Of the autoregressive model's training; an example is one context."""
    with torch.device("meta"):
        network = build("autoregressive", vocabulary, model)
        assert isinstance(network, Autoregressive)
        return _count(network, lambda count: network(_tokens(count, model)[:, :-1]).sum())[0]


@cache
def diffusion_work(model: TextModel, vocabulary: int) -> Work:
    """Of the text diffusion model's training, the mean over what a step may draw: block length, prefix, own guess."""
    process = model.process
    guessing = process.self_conditioning
    with torch.device("meta"):
        network = build("diffusion", vocabulary, model)
        assert isinstance(network, Diffusion)
        flop = operators = activations = 0.0
        for block, alone in itertools.product(sorted(set(process.blocks)), (True, False)):
            chance = process.blocks.count(block) / len(process.blocks)
            chance *= process.prefix_dropout if alone else 1 - process.prefix_dropout

            def logits(count: int, block: int = block, alone: bool = alone) -> tuple[Tensor | None, ...]:
                tokens = _tokens(count, model)
                gamma, known = torch.zeros(tokens.shape), torch.zeros(tokens.shape, dtype=torch.bool)
                noise = torch.zeros(*tokens.shape, process.embedding)
                noisy = noisy_windows(network, tokens, gamma, noise, known, block, has_prefix=not alone)
                denoised, clean = network(noisy, block)
                if clean is None or not process.next_evidence:
                    return denoised, clean
                return denoised, clean, network.between(clean, tokens[:, : clean.shape[1]])

            def loss(count: int, run: Callable[..., Any] = logits) -> Tensor:
                return sum(part.sum() for part in run(count) if part is not None)

            step, forward = _count(network, loss)
            flop += chance * (step.flop + guessing * forward.flop)
            operators += chance * (step.operators + guessing * forward.operators)
            activations = max(activations, step.activations)
    return Work(step.parameters, flop, operators, activations)


def _tokens(count: int, model: TextModel) -> Tensor:
    return torch.zeros(count, model.context, dtype=torch.long)


def _count(network: nn.Module, loss: Callable[[int], Tensor]) -> tuple[Work, Work]:
    """Of a whole step and of its forward pass, from two examples and from four: the difference is what two cost.

    Operators are those of the second pass: in the first, masks and the like are made that are kept.
    """
    small, large = (_pass(network, loss, count) for count in (2, 4))
    parameters = sum(p.numel() for p in network.parameters())
    bytes_kept = (large[2] - small[2]) / 2
    step, forward = (Work(parameters, (large[0][i] - small[0][i]) / 2, large[1][i], bytes_kept) for i in (1, 0))
    return step, forward


def _pass(
    network: nn.Module, loss: Callable[[int], Tensor], count: int
) -> tuple[tuple[int, int], tuple[int, int], int]:
    """FLOP and operators after the forward and after the backward pass; bytes kept between them."""
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, Tensor] = {}  # by storage, alive until the end so that none is freed and its number reused

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with Operators() as operators, FlopCounterMode(display=False) as flops:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            value = loss(count)
        forward = flops.get_total_flops(), operators.count
        value.backward()
    network.zero_grad(set_to_none=True)
    stored = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)
    return (forward[0], flops.get_total_flops()), (forward[1], operators.count), stored


class Operators(TorchDispatchMode):
    """Counts operators that write something; views only look at what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returns = func._schema.returns
        alias = returns[0].alias_info if returns else None
        if "empty" not in func.name() and (alias is None or alias.is_write):
            self.count += 1
        return func(*args, **(kwargs or {}))
