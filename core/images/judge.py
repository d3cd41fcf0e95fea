"""The judge: a small classifier of the real training images, by whose features and answers samples are measured.

    judge.safetensors   weights
    judge.json          their SHA-256, accuracy on the real test split with its count and interval, the data's hash

Numbers measured by two judges can't be compared; so every metric names its judge's SHA-256. Its features are
standardised on the real training images, which gives distances in them a unit: one standard deviation of real data.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from core import storage
from core.config import config_hash
from core.errors import UserError
from core.images.config import ImageEvaluate
from core.images.dataset import ImageDataset
from core.images.shards import Images, order_of
from core.processes import parts as parallel
from core.processes.world import SINGLE_PROCESS, World, own_device
from core.randomness import generator_of
from core.storage import integrity
from core.storage.checkpoint import deserialize, serialize
from core.training.eager import AdamW

WEIGHTS, DESCRIPTION = "judge.safetensors", "judge.json"
FEATURES = 64
WIDTHS = (32, 48, 64)
BATCH = 128
LEARNING_RATE = 4e-3
MAX_WEIGHT_BYTES = 1 << 30


class JudgeNetwork(nn.Module):
    """Convolutions down to about 7x7, then 64 standardised features, then the classes.

    Images [B, C, H, W] in [-1, 1] to (features [B, 64], logits [B, K]).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        halvings = max(0, round(math.log2(min(height, width) / 5.2)))
        layers: list[nn.Module] = []
        for level in range(max(len(WIDTHS), halvings)):
            out = WIDTHS[min(level, len(WIDTHS) - 1)]
            stride = 2 if level < halvings else 1
            kernel = 5 if level == 0 else 3
            layers += [
                nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
            ]
            channels, height, width = out, -(-height // stride), -(-width // stride)
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.project = nn.Linear(channels * height * width, FEATURES, bias=False)
        self.normalise = nn.BatchNorm1d(FEATURES, affine=False)
        self.classify = nn.Linear(FEATURES, classes)
        # Of the normalised features of real images. The batch normalisation saw moved ones, in moving averages.
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.normalise(self.project(self.body(images)))  # [B, 64]
        return (features - self.mean) / self.deviation, self.classify(F.relu(features))


@dataclass(frozen=True)
class Answers:
    """What the judge says of N images: `features` float64 [N, 64], `probabilities` float32 [N, K]."""

    features: NDArray[np.float64]
    probabilities: NDArray[np.float32]

    def rows(self, order: NDArray[np.int64]) -> Answers:
        """The answers of the images `order`."""
        return Answers(self.features[order], self.probabilities[order])

    @property
    def classes(self) -> NDArray[np.int64]:
        """The most likely class of each image, int64 [N]."""
        answer: NDArray[np.int64] = self.probabilities.argmax(axis=1).astype(np.int64)
        return answer

    @property
    def confidence(self) -> float:
        """Mean probability of the most likely class."""
        return float(self.probabilities.max(1).mean())


class Judge:
    """A trained judge, in evaluation mode."""

    def __init__(self, network: JudgeNetwork, description: dict[str, Any], device: torch.device) -> None:
        self.network, self.description, self.device = network.eval(), description, device

    @classmethod
    def open(cls, path: str | Path) -> Judge:
        """The judge in the local folder `path`.

        Raises:
            UserError: it is missing or damaged, or its weights are not those that judge.json describes.
        """
        folder = Path(path)
        description = integrity.read_json(folder / DESCRIPTION)
        hash = storage.sha256(folder / WEIGHTS)
        if hash != description.get("sha256"):
            raise UserError(f"{folder / WEIGHTS}: its SHA-256 is {hash[:12]}.., not the one in {DESCRIPTION}")
        channels, height, width = description["image"]
        network = JudgeNetwork(channels, height, width, len(description["class_names"]))
        weights = storage.read_bytes(folder / WEIGHTS, limit=MAX_WEIGHT_BYTES)
        try:
            network.load_state_dict(deserialize(weights, str(folder / WEIGHTS)))
        except RuntimeError as error:
            raise UserError(f"{folder / WEIGHTS}: does not fit this version's judge: {error}") from None
        device = own_device()
        return cls(network.to(device), description, device)

    @property
    def sha256(self) -> str:
        return str(self.description["sha256"])

    @torch.inference_mode()
    def examine(self, images: Images, batch_size: int = 256, world: World = SINGLE_PROCESS) -> Answers:
        """Features and class probabilities of `images`, uint8 [N, H, W] or [N, H, W, 3]; batches divided over `world`,
        the whole in every process."""

        def batch(index: int) -> parallel.Arrays:
            part = images[index * batch_size : (index + 1) * batch_size]
            features, logits = self.network(to_network(part, self.device))
            return {"features": features.double().cpu().numpy(), "probabilities": logits.softmax(1).cpu().numpy()}

        parts = parallel.arrays(batch, -(-len(images) // batch_size), world)
        return Answers(*(np.concatenate([part[name] for part in parts]) for name in ("features", "probabilities")))


def to_network(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 [B, H, W] or [B, H, W, 3] to float32 [B, C, H, W] in [-1, 1]."""
    tensor = torch.from_numpy(np.array(images)).to(device)  # a copy: memory-mapped arrays are read-only
    planes = tensor[:, None] if tensor.ndim == 3 else tensor.movedim(-1, 1)
    return planes.float() / 127.5 - 1


def train(config: ImageEvaluate, dataset: Path, out: Path) -> dict[str, Any]:
    """Trains a judge on the training split of the data set folder into the folder `out`; returns judge.json.

    The same seed on the same CPU with the same number of threads gives the same weights, unless `judge_minutes` cuts
    the training short.
    """
    data, started = ImageDataset.open(dataset), time.monotonic()
    height, width = data.shape[:2]
    device = own_device()
    with torch.random.fork_rng():
        torch.manual_seed(config.judge_seed)
        network = JudgeNetwork(data.channels, height, width, data.classes).to(device)
    epochs = fit(network, data, config, device)
    judge = Judge(network, {}, device)
    standardise(judge, data)
    test, validation = (_accuracy(judge, data, split) for split in ("test", "validation"))
    weights = serialize(network.state_dict())
    with storage.atomic_folder(out, DESCRIPTION) as folder:
        storage.write_bytes(folder / WEIGHTS, weights)
        description = {
            "modality": "images",
            "sha256": storage.sha256(folder / WEIGHTS),
            "accuracy": test / data.count("test"),
            "n": data.count("test"),
            "interval": list(wilson(test, data.count("test"))),
            "validation_accuracy": validation / data.count("validation"),
            "content_sha256": data.content_sha256,
            "image": [data.channels, height, width],
            "class_names": data.class_names,
            "features": FEATURES,
            "seed": config.judge_seed,
            "epochs": round(epochs, 3),
            "seconds": round(time.monotonic() - started, 2),
            "config_hash": config_hash([config.judge_seed, config.judge_epochs, config.judge_minutes]),
        }
        integrity.write_json(folder / DESCRIPTION, description)
    return description


def fit(network: JudgeNetwork, data: ImageDataset, config: ImageEvaluate, device: torch.device) -> float:
    """Trains a judge's network: AdamW with a one-cycle learning rate on randomly moved images; the epochs done."""
    images, labels = data.images("train"), torch.from_numpy(data.labels("train"))
    turns = _turns_head(config, device) if data.classes == 1 else None
    total = math.ceil(config.judge_epochs * len(images) / BATCH)
    order = order_of(images, config.judge_seed)
    parameters = [*network.parameters(), *(turns.parameters() if turns else ())]
    optimizer = AdamW(parameters, LEARNING_RATE, weight_decay=0.02, fused=True)
    started, step, progress = time.monotonic(), 0, 0.0
    network.train()
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(progress / 0.15 + 0.05, (1 - progress) / 0.85)
        indices = order(step * BATCH, (step + 1) * BATCH)
        generator = generator_of(config.judge_seed, "judge", step)
        batch = move_randomly(to_network(images[indices.numpy()], device), generator)
        if turns is not None:
            batch, turned = turn(batch)
            loss = F.cross_entropy(turns(F.relu(network(batch)[0])), turned)
        else:
            loss = F.cross_entropy(network(batch)[1], labels[indices].to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        minutes = (time.monotonic() - started) / 60
        progress = max(step / total, minutes / config.judge_minutes if config.judge_minutes else 0)
    return step * BATCH / len(images)


def _turns_head(config: ImageEvaluate, device: torch.device) -> nn.Linear:
    """Reads from features how an image was turned: what a judge of images without classes learns from instead.

    Gidaris et al. 2018, arXiv:1803.07728.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.judge_seed)
        return nn.Linear(FEATURES, 4).to(device)


def turn(images: Tensor) -> tuple[Tensor, Tensor]:
    """[B, C, H, W] turned by 0 to 3 quarters (half turns only where H is not W), and the quarters, int64 [B]."""
    quarters = torch.arange(len(images), device=images.device) % 4
    if images.shape[2] != images.shape[3]:
        quarters = quarters % 2 * 2
    turned = [torch.rot90(image, int(quarter), (1, 2)) for image, quarter in zip(images, quarters, strict=True)]
    return torch.stack(turned), quarters


def standardise(judge: Judge, data: ImageDataset) -> None:
    """Gives features mean 0 and deviation 1 over the training split."""
    count, total, squares = 0, np.zeros(FEATURES), np.zeros(FEATURES)
    for batch in data.batches("train", 4096):
        features = judge.examine(batch).features
        count, total, squares = count + len(features), total + features.sum(0), squares + np.square(features).sum(0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))  # a dead feature stays near 0
    judge.network.mean.copy_(torch.from_numpy(mean))
    judge.network.deviation.copy_(torch.from_numpy(deviation))


def move_randomly(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each of [B, C, H, W] turned by up to 10 degrees, scaled by up to 10 % and shifted by up to 7 % of its side."""
    uniform = torch.rand(5, len(images), generator=generator).mul_(2).sub_(1).to(images.device)  # in [-1, 1]
    angle, scale = uniform[0] * math.radians(10), 1 + 0.1 * uniform[1:3]
    cosine, sine, shift = angle.cos(), angle.sin(), 0.14 * uniform[3:]  # the side is 2 long
    rows = torch.stack([scale[0] * cosine, -scale[0] * sine, shift[0], scale[1] * sine, scale[1] * cosine, shift[1]], 1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), 95 % by default."""
    p, z2 = successes / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _accuracy(judge: Judge, data: ImageDataset, split: Any) -> int:
    answers: Iterator[NDArray[np.int64]] = (judge.examine(batch).classes for batch in data.batches(split, 4096))
    return int((np.concatenate(list(answers)) == data.labels(split)).sum())
