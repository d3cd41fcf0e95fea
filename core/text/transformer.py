"""The transformer that every model of text shares; causal or bidirectional by a flag, or by any mask.

Pre-RMSNorm, rotary positions (Su et al. 2021), normalised queries and keys (Henry et al. 2020), squared ReLU
(So et al. 2021), no biases; residual projections start at zero, so that depth costs nothing at the start.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.attention import attention
from core.text.config import TextModel, TransformerConfig

Cache = list[tuple[Tensor, Tensor]]  # keys and values [B, heads, L, D / heads] of each layer


Rotation = tuple[Tensor, Tensor]  # cosines [L, D] twice over, and sines, those of the first half negated


def rotation(positions: Tensor, size: int) -> Rotation:
    """The rotary angles of integer positions [L] for vectors of `size`."""
    frequencies = 10_000.0 ** (-2 * torch.arange(size // 2, device=positions.device, dtype=torch.float32) / size)
    angles = positions.float()[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Rotary embedding of x [..., L, D]: dot products come to depend on distances alone."""
    cos, sin = by[0].to(x.dtype), by[1].to(x.dtype)
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin


class Norm(nn.RMSNorm):
    """RMSNorm in the precision of its weight, whatever autocast hands it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class Layer(nn.Module):
    """Attention and a two-layer network, each added to the residual stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attention_norm, self.mlp_norm = Norm(width), Norm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.gain = nn.Parameter(torch.full((config.heads, 1, 1), 2.0))  # of normalised queries
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.zeros_(self.attention_out.weight)
        nn.init.zeros_(self.down.weight)

    def forward(
        self, x: Tensor, by: Rotation, mask: Tensor | None, causal: bool, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, length, width = x.shape
        projected = self.query_key_value(self.attention_norm(x)).view(batch, length, 3, self.heads, width // self.heads)
        pair, (value,) = projected.permute(2, 0, 3, 1, 4).split((2, 1))  # [2, B, heads, L, D / heads], and the third
        gains = F.pad(self.gain, (0, 0, 0, 0, 0, self.heads), value=1.0).view(2, 1, self.heads, 1, 1)  # keys have none
        query, key = rotate(_normalise(pair) * gains, by)
        key = key.to(value.dtype)
        if past is not None:
            key, value = torch.cat((past[0], key), dim=2), torch.cat((past[1], value), dim=2)
        mixed = attention(query, key, value, mask=mask, causal=causal)
        x = x + self.dropout(self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width)))
        x = x + self.dropout(self.down(F.relu(self.up(self.mlp_norm(x))).square()))
        return x, (key, value)


class Transformer(nn.Module):
    """Layers with a norm before and after."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.head_width = config.width // config.heads
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.first_norm, self.last_norm = Norm(config.width), Norm(config.width)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        past: Cache | None = None,
        keep: Cache | None = None,
    ) -> Tensor:
        """Features [B, L, D] of inputs x [B, L, D].

        Args:
            positions: [L], of x.
            mask: boolean [L, P + L], true where a row may look at a column; P is the length of `past`.
            causal: look at no later position (without `past` and `mask`).
            past: keys and values of P earlier positions, all of which may be attended to.
            keep: an empty list that takes the keys and values of past and x.
        """
        x = self.first_norm(x)
        by = rotation(positions, self.head_width)
        for index, layer in enumerate(self.layers):
            x, entry = layer(x, by, mask, causal, past[index] if past else None)
            if keep is not None:
                keep.append(entry)
        features: Tensor = self.last_norm(x)
        return features


def _normalise(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],))


class TokenTransformer(nn.Module):
    """What the autoregressive model and the masked one share: embeddings of fixed length, the backbone, and a head.

    Embeddings lie on the sphere of radius sqrt(d), because diffusion puts noise on the same ones. The table has one row
    more than there are tokens, for the start token or the mask.

    Args:
        vocabulary: tokens.
        config: sizes.
        unigram: log-probabilities [V] of single tokens, where the output bias starts: the first loss is their entropy.
    """

    def __init__(self, vocabulary: int, config: TextModel, unigram: Tensor) -> None:
        super().__init__()
        width, size = config.transformer.width, config.process.embedding
        self.vocabulary, self.context = vocabulary, config.context
        self.directions = nn.Parameter(torch.empty(vocabulary + 1, size))
        nn.init.normal_(self.directions, std=0.02)
        self.embed = nn.Linear(size, width, bias=False)
        self.transformer = Transformer(config.transformer)
        self.head = nn.Linear(width, vocabulary)
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias.copy_(unigram)

    def embeddings(self) -> Tensor:
        """Embeddings of all rows of the table: [V + 1, d], each of length sqrt(d)."""
        return F.normalize(self.directions, dim=-1) * math.sqrt(self.directions.shape[1])
