"""The plain residual UNet of a first DDPM: ReLU, no normalisation, noise level and class as one bias per channel.

Kept as a second architecture, so that a classic configuration runs through the same code as the default one and the
two can be compared.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.images.model import ImageShape
from core.images.networks import DDPMUNetConfig


class DDPMUNet(nn.Module):
    """Two resolutions, concatenated skip. [B, C, H, W], [B], [B] -> [B, C, H, W]; H and W even.

    `noise_level` is the schedule's time from 0 to 1, `labels` lie in [0, classes], the last one being no class.
    """

    def __init__(self, config: DDPMUNetConfig, image_channels: int, classes: int) -> None:
        super().__init__()
        narrow, wide = config.channels
        self.stem = nn.Conv2d(image_channels, narrow, 3, padding=1)
        self.down1 = ReLUBlock(narrow, narrow, classes)
        self.down2 = ReLUBlock(narrow, wide, classes)
        self.middle = ReLUBlock(wide, wide, classes)
        self.up1 = ReLUBlock(2 * wide, narrow, classes)
        self.head = nn.Conv2d(narrow, image_channels, 3, padding=1)

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
        h = self.down1(self.stem(x), noise_level, labels)
        skip = self.down2(h, noise_level, labels)
        h = self.middle(F.max_pool2d(skip, 2), noise_level, labels)
        h = torch.cat([F.interpolate(h, scale_factor=2.0, mode="nearest"), skip], dim=1)
        return self.head(self.up1(h, noise_level, labels))


class ReLUBlock(nn.Module):
    """relu(conv(relu(conv(x)) + bias of time and class)) + skip(x)."""

    def __init__(self, channels_in: int, channels_out: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.time = nn.Linear(1, channels_out)
        self.classes = nn.Embedding(classes + 1, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
        bias = self.time(noise_level[:, None]) + self.classes(labels)  # [B, C]
        h = F.relu(self.conv1(x)) + bias[:, :, None, None]
        return F.relu(self.conv2(h)) + self.skip(x)


Config = DDPMUNetConfig


def build(config: DDPMUNetConfig, shape: ImageShape) -> DDPMUNet:
    """The network for images of `shape`."""
    return DDPMUNet(config, shape.channels, len(shape.class_names))
