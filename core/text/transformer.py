"""The transformer that every model of text shares; causal or bidirectional by a flag, or by any mask.

Pre-RMSNorm, rotary positions (Su et al. 2021), normalised queries and keys (Henry et al. 2020), squared ReLU
(So et al. 2021), no biases; residual projections start at zero, so that depth costs nothing at the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.attention import attention
from core.text.config import TextModel, TransformerConfig

Put = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # new keys and values, to all that are looked at
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


class Cache:
    """Keys and values of the inputs of a causal transformer, in place at their positions: each input is read once.

    Args:
        room: positions there are.
        device: where they are.
        fixed: all shapes are those of the full room, whatever it holds, so that work can be recorded; masks hide what
            is not there. Else what is looked at ends where the last input does.
    """

    def __init__(self, room: int, device: torch.device, *, fixed: bool = False) -> None:
        self.length = 0  # inputs read
        self.fixed = fixed
        self.positions = torch.arange(room, device=device)
        self._end = room
        self._layers: list[tuple[Tensor, Tensor]] = []  # keys and values [B, heads, room, D / heads]

    def place(self, count: int) -> Tensor:
        """Positions [count] of the next inputs."""
        last = self.length + count
        self._end = len(self.positions) if self.fixed else last
        return self.positions[self.length : last]

    def seen(self, last: Tensor) -> Tensor | None:
        """The mask [L, P] by which L rows see positions up to `last` [L], the positions that `place` gave or later."""
        if len(last) == 1 and not self.fixed:
            return None
        return self.positions[: self._end] <= last[:, None]

    def put(self, layer: int, positions: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, heads, P, D / heads] of a layer with those of inputs at `positions` [L] among them."""
        if layer == len(self._layers):
            shape = (*value.shape[:2], len(self.positions), value.shape[-1])
            self._layers.append((value.new_zeros(shape), value.new_zeros(shape)))
        kept = self._layers[layer]
        for all_of_them, new in zip(kept, (key, value), strict=True):
            all_of_them.index_copy_(2, positions, new)
        return kept[0][:, :, : self._end], kept[1][:, :, : self._end]

    def repeated(self, rows: int) -> Cache:
        """Copies of what was read of one row, for so many that go on from there."""
        copy = Cache(len(self.positions), self.positions.device, fixed=self.fixed)
        copy.length = self.length
        copy._layers = [(key.repeat(rows, 1, 1, 1), value.repeat(rows, 1, 1, 1)) for key, value in self._layers]
        return copy


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

    def forward(self, x: Tensor, by: Rotation, mask: Tensor | None, causal: bool, put: Put | None) -> Tensor:
        batch, length, width = x.shape
        projected = self.query_key_value(self.attention_norm(x)).view(batch, length, 3, self.heads, width // self.heads)
        pair, (value,) = projected.permute(2, 0, 3, 1, 4).split((2, 1))  # [2, B, heads, L, D / heads], and the third
        gains = F.pad(self.gain, (0, 0, 0, 0, 0, self.heads), value=1.0).view(2, 1, self.heads, 1, 1)  # keys have none
        query, key = rotate(_normalise(pair) * gains, by)
        key = key.to(value.dtype)
        if put is not None:
            key, value = put(key, value)
        mixed = attention(query, key, value, mask=mask, causal=causal)
        x = x + self.dropout(self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width)))
        h = F.relu(self.up(self.mlp_norm(x)))
        x = x + self.dropout(self.down(h * h))  # `square` is a power to autocast, which takes those in fp32
        return x


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
        cache: Cache | None = None,
    ) -> Tensor:
        """Features [B, L, D] of inputs x [B, L, D].

        Args:
            positions: [L], of x.
            mask: boolean [L, P], true where a row may look at a column; P is L, or what `cache` shows.
            causal: look at no later position (without `cache` and `mask`).
            cache: keys and values of earlier positions, all of which may be attended to; those of x go there too.
        """
        x = self.first_norm(x)
        by = rotation(positions, self.head_width)
        for index, layer in enumerate(self.layers):
            x = layer(x, by, mask, causal, partial(cache.put, index, positions) if cache is not None else None)
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
