"""nanoGPT's network (Karpathy 2023, model.py) in fifty lines, for its speed: GPT-2's layers, no biases, a tied head.

Trained as its train.py does: fused AdamW with betas (.9, .95), decay .1 of matrices, gradients clipped to 1, autocast,
compiled on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.text.config import TransformerConfig
from core.training.precision import Precision


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). [B, L, D] -> [B, L, D]"""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.norms[0](x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # [B, heads, L, D / heads] each
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class NanoGPT(nn.Module):
    """Logits [B, L, V] of the token after each of ids [B, L]."""

    def __init__(self, vocabulary: int, context: int, sizes: TransformerConfig) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, sizes.width), nn.Embedding(context, sizes.width)
        self.blocks = nn.Sequential(*(Block(sizes.width, sizes.heads) for _ in range(sizes.depth)))
        self.norm = nn.LayerNorm(sizes.width, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        return F.linear(self.norm(self.blocks(x)), self.tokens.weight)


def training_step(network: NanoGPT, ids: Tensor, number_format: Precision, *, compiled: bool) -> Callable[[], None]:
    """A step on windows ids [B, L + 1]: the same ones each time, since only its speed counts."""
    decayed = [p for p in network.parameters() if p.ndim >= 2]
    plain = [p for p in network.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=True)
    forward: Callable[[Tensor], Tensor] = torch.compile(network) if compiled else network

    def step() -> None:
        with number_format.autocast(ids.device):
            loss = F.cross_entropy(forward(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
