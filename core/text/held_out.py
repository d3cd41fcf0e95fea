"""Bits per character of held-out text: bounds of diffusion and of masks, the autoregressive model's likelihood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from core.processes import parts as parallel
from core.processes.world import SINGLE_PROCESS, World
from core.randomness import generator_of
from core.text import data
from core.text.autoregressive import Autoregressive, bits_per_character
from core.text.bound import variational_bound
from core.text.config import TextEvaluate
from core.text.data import TextSet
from core.text.denoiser import Diffusion
from core.text.glossary import AUTOREGRESSIVE_BITS, BOUND
from core.text.masked import Masked, masked_loss
from core.text.model import TrainedText
from core.text.objective import noisy_windows, token_losses


@torch.no_grad()
def bounds(
    trained: TrainedText,
    other: Autoregressive | None,
    texts: TextSet,
    settings: TextEvaluate,
    world: World = SINGLE_PROCESS,
) -> dict[str, float]:
    """Bits per character of held-out text: the bound of diffusion or masks, and the autoregressive likelihood."""
    network, config, device = trained.network, trained.config, world.device
    tokens = data.held_out(texts.tokens["test"], config.context, settings.bound_windows).to(device)
    draws, rate = generator_of(settings.seed, "bound"), _characters_per_token(tokens, texts)
    found: dict[str, float] = {}
    if isinstance(network, Diffusion):
        found[BOUND.name] = bits_per_character(diffusion_bound(network, tokens, draws, world), rate)
    elif isinstance(network, Masked):
        share = (0.5 + torch.arange(len(tokens) * 8, device=device)) / (len(tokens) * 8)
        many = tokens.repeat(8, 1)
        masks = (torch.rand(many.shape, generator=draws) < share.cpu()[:, None]).to(device)
        hidden = many.masked_fill(masks, network.vocabulary)
        places = torch.arange(len(many), device=device).split(64)
        nats = _mean(lambda i: masked_loss(network(hidden[i]), many[i], masks[i], share[i]), places, world)
        found[BOUND.name] = bits_per_character(nats, rate)
    if other is not None:
        nats = _mean(lambda part: token_losses(other(part[:, :-1]), part), tokens.split(32), world)
        found[AUTOREGRESSIVE_BITS.name] = bits_per_character(nats, rate)
    return found


def _mean(losses: Callable[[Tensor], Tensor], parts: Sequence[Tensor], world: World) -> float:
    """Mean of the losses of all parts together, divided over `world`."""
    found = parallel.arrays(lambda i: {"losses": losses(parts[i]).cpu().numpy()}, len(parts), world)
    return float(np.concatenate([part["losses"] for part in found]).mean(dtype=np.float64))


def diffusion_bound(network: Diffusion, tokens: Tensor, draws: torch.Generator, world: World = SINGLE_PROCESS) -> float:
    """Nats per token of tokens [B, L]: the sum over blocks of their bounds given the clean text before."""
    process = network.config.process
    block = process.blocks[0]
    known = torch.zeros_like(tokens, dtype=torch.bool)

    def denoise(z: Tensor, gamma: Tensor) -> Tensor:
        shape = noisy_windows(network, tokens, gamma, torch.zeros_like(z), known, block)
        return network(replace(shape, z=z), block)[0]

    low, high = process.gamma_min, process.gamma_max
    return variational_bound(denoise, tokens, network.embeddings(), low, high, draws, world=world)


def _characters_per_token(tokens: Tensor, texts: TextSet) -> float:
    return sum(len(texts.tokenizer.decode(row)) for row in tokens.tolist()) / tokens.numel()
