"""A second opinion: a judge of another architecture and another seed, so that no result hangs on one's features."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import storage
from core.images import judge
from core.images.config import ImageEvaluate
from core.images.dataset import ImageDataset
from core.images.judge import FEATURES, Judge, JudgeNetwork
from core.processes.world import own_device
from core.storage.checkpoint import deserialize, serialize

WIDTHS = (32, 64, 96)
SEED = 1
WEIGHTS, BYTES = "second_judge.safetensors", 1 << 24


class SecondJudgeNetwork(JudgeNetwork):
    """Residual blocks and a mean over all places, where the first one has plain convolutions and keeps the places."""

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__(channels, height, width, classes)
        stride = 2 if min(height, width) >= 16 else 1
        layers: list[nn.Module] = [nn.Conv2d(channels, WIDTHS[0], 3, stride, padding=1)]
        for before, after in zip(WIDTHS[:1] + WIDTHS, WIDTHS, strict=False):
            layers.append(_Residual(before, after, stride=1 if after == WIDTHS[0] else 2))
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.project = nn.Linear(WIDTHS[-1], FEATURES, bias=False)


class _Residual(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.skip = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.norm1(self.conv1(x)))
        return F.silu(self.skip(x) + self.norm2(self.conv2(h)))


def train(dataset: Path, out: Path, epochs: float) -> None:
    """Trains it as the first judge is trained, into the folder `out`."""
    data = ImageDataset.open(dataset)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = _network(data).to(own_device())
    judge.fit(network, data, ImageEvaluate(judge_epochs=epochs, judge_seed=SEED), own_device())
    judge.standardise(Judge(network, {}, own_device()), data)
    out.mkdir(parents=True, exist_ok=True)
    storage.write_bytes(out / WEIGHTS, serialize(network.state_dict()))


def load(dataset: Path, out: Path) -> Judge:
    """The judge that `train` wrote."""
    network = _network(ImageDataset.open(dataset, verify=False)).to(own_device())
    network.load_state_dict(deserialize(storage.read_bytes(out / WEIGHTS, limit=BYTES), WEIGHTS))
    return Judge(network, {"seed": SEED}, own_device())


def _network(data: ImageDataset) -> SecondJudgeNetwork:
    height, width = data.shape[:2]
    return SecondJudgeNetwork(data.channels, height, width, data.classes)
