"""A small UNet for small images: a function of a noisy image, its noise level and its class.

Sized by its configuration. Most of the work happens at the lower resolutions, where a 3x3 convolution of twice the
channels costs the same and sees twice as far; skips are added rather than concatenated, which halves the cost of
the way up; attention is at the lowest resolution only. It ends as offset + gain * x, pixel by pixel: the noise to
be taken away need not pass through normalised channels, which lose its scale. The last convolution of every block and
of the network starts at zero, so training starts from the identity.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.attention import FULL, attention
from core.images.model import ImageShape
from core.images.networks import UNetConfig


class UNet(nn.Module):
    """F(x, c_noise, label) of core/noise.py. [B, C, H, W], [B], [B] -> [B, C, H, W]

    `labels` lie in [0, classes]; the last one, `classes`, means no class. H and W must be divisible by
    patch * 2^(levels - 1).
    """

    def __init__(self, config: UNetConfig, image_channels: int, classes: int) -> None:
        super().__init__()
        channels, width = config.channels, config.embedding
        self.fourier = Fourier(width // 2)
        self.embed = nn.Sequential(nn.Linear(width // 2 * 2, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = nn.Embedding(classes + 1, width)
        self.patch = config.patch
        self.stem = nn.Conv2d(image_channels * config.patch**2, channels[0], 3, padding=1)

        def blocks(level: int) -> nn.ModuleList:
            count = config.blocks[level]
            return nn.ModuleList(ResidualBlock(channels[level], width, config.dropout) for _ in range(count))

        levels = range(len(channels) - 1)
        self.down_blocks = nn.ModuleList(blocks(level) for level in levels)
        self.down = nn.ModuleList(nn.Conv2d(channels[i], channels[i + 1], 3, stride=2, padding=1) for i in levels)
        self.middle = blocks(len(levels))
        self.attention = Attention(channels[-1], config.head_channels) if config.attention else nn.Identity()
        self.last = ResidualBlock(channels[-1], width, config.dropout)
        self.up = nn.ModuleList(nn.Conv2d(channels[i + 1], channels[i], 1) for i in levels)
        self.up_blocks = nn.ModuleList(blocks(level) for level in levels)
        self.norm = GroupNorm(channels[0])
        self.head = zeroed(nn.Conv2d(channels[0], 2 * image_channels * config.patch**2, 3, padding=1))

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
        condition = F.silu(self.embed(self.fourier(noise_level)) + self.classes(labels))  # [B, E]
        x = F.pixel_unshuffle(x, self.patch)  # [B, C p^2, H/p, W/p]
        h = self.stem(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for level, down in enumerate(self.down):
            h = _through(self.down_blocks[level], h, condition)
            skips.append(h)
            h = down(h)
        h = _through(self.middle, h, condition)
        h = self.last(self.attention(h), condition)
        for level in reversed(range(len(self.up))):
            h = twice_as_large(self.up[level](h)) + skips.pop()
            h = _through(self.up_blocks[level], h, condition)
        offset, gain = self.head(F.silu(self.norm(h))).chunk(2, dim=1)
        return F.pixel_shuffle(torch.addcmul(offset, gain, x), self.patch)


def _through(blocks: nn.Module, h: Tensor, condition: Tensor) -> Tensor:
    for block in blocks.children():
        h = block(h, condition)
    return h


class ResidualBlock(nn.Module):
    """x + conv(silu(FiLM(norm(conv(silu(norm(x))))))). [B, C, H, W], [B, E] -> [B, C, H, W]"""

    def __init__(self, channels: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = GroupNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = zeroed(nn.Linear(width, 2 * channels))
        self.norm2 = GroupNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)  # [B, C, 1, 1] each
        h = F.silu(torch.addcmul(shift, self.norm2(h), 1 + scale))
        return x + self.conv2(self.dropout(h))


class Attention(nn.Module):
    """Self-attention over all pixels, added to its input. [B, C, H, W] -> the same"""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        self.norm = GroupNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        pixels = self.norm(x).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        qkv = self.qkv(pixels).view(batch, -1, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, heads, H W, C / heads] each
        mixed = attention(q, k, v).transpose(1, 2).reshape(batch, -1, channels)
        return x + self.out(mixed).view(batch, height, width, channels).permute(0, 3, 1, 2)


class Fourier(nn.Module):
    """Cosines and sines of the noise level c_noise = ln(sigma)/4 at fixed frequencies. [B] -> [B, 2 pairs]"""

    frequencies: Tensor

    def __init__(self, pairs: int) -> None:
        super().__init__()
        frequencies = 2 * math.pi * torch.logspace(-1.5, 0.75, pairs)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, noise_level: Tensor) -> Tensor:
        angles = noise_level[:, None] * self.frequencies  # [B, pairs]
        return torch.cat([angles.cos(), angles.sin()], dim=1)


def twice_as_large(h: Tensor) -> Tensor:
    """Every pixel four times: [B, C, H, W] -> [B, C, 2 H, 2 W]"""
    if not h.is_cuda:
        return F.interpolate(h, scale_factor=2.0, mode="nearest")
    # Its backward pass took 0.9 ms for a thousand maps of 14 x 14 on an H200, and adds in any order; a sum does not.
    batch, channels, height, width = h.shape
    return h[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2).reshape(batch, channels, 2 * height, 2 * width)


class GroupNorm(nn.GroupNorm):
    """Group normalisation with groups of 8 channels or, where that does not divide, one group.

    In bf16 on a CPU by way of fp32: for channels-last torch's own kernel takes four times as long there (64 maps of
    64 x 14 x 14 and their gradients: 6.7 against 1.8 ms).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels // 8 if channels % 8 == 0 else 1, channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype in FULL:
            return super().forward(x)
        return super().forward(x.float()).to(x.dtype)


Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def zeroed(layer: Layer) -> Layer:
    """The same layer with all its weights at zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


Config = UNetConfig


def build(config: UNetConfig, shape: ImageShape) -> UNet:
    """The network for images of `shape`."""
    return UNet(config, shape.channels, len(shape.class_names))
