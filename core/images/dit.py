"""A small diffusion transformer (Peebles and Xie 2023): patches as tokens, each block scaled by noise level and class.

    x = x + gate attention(scale norm(x) + shift);  x = x + gate mlp(scale norm(x) + shift)

Scales, shifts and gates come from the embedding and start at zero, so every block starts as the identity (adaLN-Zero).
Queries and keys are normalised, which bounds attention's logits whatever Muon makes of the weights. It ends as the UNet
does, offset + gain x: the noise to be taken away need not pass through the tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.attention import attention
from core.images.model import ImageShape
from core.images.networks import DiTConfig
from core.images.unet import Fourier, zeroed


class DiT(nn.Module):
    """F(x, c_noise, label) of core/noise.py, for images of one size. [B, C, H, W], [B], [B] -> [B, C, H, W]

    `labels` lie in [0, classes]; the last one means no class. H and W must be divisible by the patch.
    """

    positions: Tensor

    def __init__(self, config: DiTConfig, shape: ImageShape) -> None:
        super().__init__()
        width, self.patch = config.width, config.patch
        self.grid = shape.height // config.patch, shape.width // config.patch
        self.fourier = Fourier(width // 2)
        self.embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = nn.Embedding(len(shape.class_names) + 1, width)
        self.stem = nn.Linear(shape.channels * config.patch**2, width)
        self.register_buffer("positions", sinusoids(*self.grid, width), persistent=False)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.modulate = zeroed(nn.Linear(width, 2 * width))
        self.head = zeroed(nn.Linear(width, 2 * shape.channels * config.patch**2))

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
        condition = F.silu(self.embed(self.fourier(noise_level)) + self.classes(labels))  # [B, D]
        x = F.pixel_unshuffle(x, self.patch)  # [B, C p^2, H/p, W/p]
        h = self.stem(x.flatten(2).transpose(1, 2)) + self.positions  # [B, N, D]
        for block in self.blocks:
            h = block(h, condition)
        scale, shift = self.modulate(condition)[:, None].chunk(2, dim=2)
        output = self.head(scaled(h, scale, shift)).transpose(1, 2).unflatten(2, self.grid)  # [B, 2 C p^2, H/p, W/p]
        offset, gain = output.chunk(2, dim=1)
        return F.pixel_shuffle(torch.addcmul(offset, gain, x), self.patch)


class Block(nn.Module):
    """Attention and an MLP, each scaled, shifted and gated by the embedding. [B, N, D], [B, D] -> [B, N, D]"""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulate = zeroed(nn.Linear(width, 6 * width))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulate(condition)[:, None].chunk(6, dim=2)  # [B, 1, D]
        x = torch.addcmul(x, gate1, self.attention(scaled(x, scale1, shift1)))
        return torch.addcmul(x, gate2, self.mlp(scaled(x, scale2, shift2)))

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [B, heads, N, D / heads] each
        q, k = (F.rms_norm(one, one.shape[-1:]).to(v.dtype) for one in (q, k))
        return self.out(attention(q, k, v).transpose(1, 2).flatten(2))


def scaled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Normalised tokens [B, N, D], scaled by 1 + scale and shifted, both [B, 1, D]."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)


def sinusoids(rows: int, columns: int, width: int) -> Tensor:
    """Where each token is: cosines and sines of row and column, of periods 2 pi to 200 pi. [rows columns, width]"""

    def along(size: int) -> Tensor:
        angles = torch.linspace(0, size - 1, size)[:, None] * torch.logspace(0, -2, width // 4)
        return torch.cat([angles.cos(), angles.sin()], dim=1)  # [size, width / 2]

    down, across = along(rows)[:, None].expand(-1, columns, -1), along(columns)[None].expand(rows, -1, -1)
    return torch.cat([down, across], dim=2).flatten(0, 1)


Config = DiTConfig


def build(config: DiTConfig, shape: ImageShape) -> DiT:
    """The network for images of `shape`."""
    return DiT(config, shape)
