"""Masked discrete diffusion (MDLM, Sahoo et al. 2024): the control that corrupts by masks instead of Gaussian noise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from core.randomness import Noise
from core.text.autoregressive import draw
from core.text.transformer import TokenTransformer


class Masked(TokenTransformer):
    """Predicts masked tokens from the others, both ways. The last row of the table is the mask."""

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [B, L, V] of ids [B, L], in which the id `vocabulary` is the mask."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        logits: Tensor = self.head(self.transformer(self.embed(self.embeddings()[ids]), positions))
        return logits


def masked_loss(logits: Tensor, tokens: Tensor, masked: Tensor, share: Tensor) -> Tensor:
    """The bound [B] in nats per token: cross-entropy at masks, weighted by 1 / share of masks (MDLM, equation 10)."""
    losses = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)
    return (losses * masked).sum(dim=1) / share / tokens.shape[1]


@torch.no_grad()
def generate(model: Masked, length: int, steps: int, noise: Noise, temperature: float = 1.0) -> Tensor:
    """Tokens [B, length], a row of `noise` each: all masks at first, of which each step reveals its share."""
    ids = torch.full((len(noise), length), model.vocabulary, device=model.directions.device)
    for step in range(steps, 0, -1):
        drawn = draw(model(ids) / temperature, noise)
        reveal = noise.uniform(length) < 1 / step
        ids = torch.where((ids == model.vocabulary) & reveal, drawn, ids)
    return ids
