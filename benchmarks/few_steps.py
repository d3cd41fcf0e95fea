"""Two evaluations an image: a student that learns where the paths of a trained teacher end, and what else has two.

    python -m benchmarks.few_steps --model RUN/steps/train --dataset RUN/steps/prepare-data \
        --judge RUN/steps/train-judge [--pairs 8000] [--examples 64000] [--work FOLDER]

Pairs of noise and endpoint come from the teacher's own sampling, by an ODE and with all of its guidance; an endpoint is
a function of noise and class, so regression on it has no average to blur (Luhman and Luhman 2021). The student begins
with the teacher's weights and predicts the endpoint at two noise levels: from noise alone, and from a state at
`--middle` that is the teacher's in half of each batch and the student's own in the other half. Guidance is in it, so a
sample costs two evaluations of one network where the teacher has two or three networks in each.

Pairs stay in `--work` and are added to. One training; its seed is not the teacher's.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.results import parser, publish, work_folder
from core import samplers, storage
from core.config import TrainConfig
from core.images import metrics, pictures
from core.images import sampling as drawing
from core.images.config import ImageSample
from core.images.dataset import ImageDataset
from core.images.evaluation import REFERENCE
from core.images.guidance import denoiser_of
from core.images.judge import Judge
from core.images.model import TrainedModel, load_model
from core.images.objective import ImageObjective
from core.images.samples import in_proportion
from core.processes.world import World, own_device
from core.randomness import DataOrder, seed_of
from core.samplers import SampleNoise
from core.training.budget import Budget
from core.training.ema import PowerEMA
from core.training.optimizers import Optimizers

BATCH = 250  # paths together
Images = NDArray[np.uint8]


class Paths:
    """Noise, class, a state in the middle and the endpoint of the teacher's paths.

    Args:
        trained: the teacher.
        settings: how it draws: an ODE, so that an endpoint is a function of the noise.
        middle: the noise level of the state that is kept, or the next one of the grid.
    """

    def __init__(self, trained: TrainedModel, settings: ImageSample, middle: float) -> None:
        self.trained, self.settings = trained, settings
        self.sigmas = drawing.choose_sigmas(settings, trained.process)
        self.place = int((self.sigmas[:-1] / middle).log().abs().argmin())
        self.top, self.middle = float(self.sigmas[0]), float(self.sigmas[self.place])

    def batch(self, number: int) -> dict[str, NDArray[Any]]:
        """Paths [number x BATCH, (number + 1) x BATCH): noise, labels, states and ends, float32 [BATCH, C, H, W]."""
        labels = np.arange(BATCH) % len(self.trained.shape.class_names)
        seeds = [seed_of("path", number * BATCH + i) for i in range(BATCH)]
        device, states = own_device(), {}

        def keep(step: samplers.Step) -> None:
            states[step.index] = step.x

        with torch.inference_mode():
            denoiser = denoiser_of(self.trained, self.settings, labels, device)
            unit = SampleNoise(seeds, self.trained.shape.size, device)()
            x = samplers.estimated_start(denoiser, self.top * unit, self.top)
            ends = samplers.SAMPLERS[self.settings.sampler](denoiser, x, self.sigmas, callback=keep)
        kept = {"noise": unit, "states": states[self.place], "ends": ends}
        return {"labels": labels, **{name: value.float().cpu().numpy() for name, value in kept.items()}}

    def collected(self, count: int, folder: Path) -> dict[str, Tensor]:
        """At least `count` paths; those that are in `folder` are not solved again."""
        folder.mkdir(parents=True, exist_ok=True)
        parts = []
        for number in range(-(-count // BATCH)):
            path = folder / f"paths-{number:05d}.npz"
            if not path.exists():
                storage.write_bytes(path, pictures.npz(**self.batch(number)))
            with np.load(path) as arrays:
                parts.append(dict(arrays))
        return {name: torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in parts[0]}


class Student:
    """The teacher's network, which learns to say where a path ends."""

    def __init__(self, paths: Paths) -> None:
        self.paths, self.process = paths, paths.trained.process
        self.network = copy.deepcopy(paths.trained.network).requires_grad_(True)

    def jump(self, network: nn.Module, x: Tensor, sigma: float, labels: Tensor) -> Tensor:
        """The endpoint [B, C, H, W] of the path through x at `sigma`."""
        return self.process.denoise(network, x, torch.tensor(sigma), labels)

    def state(self, unit: Tensor, end: Tensor) -> Tensor:
        """The state in the middle of a straight path from noise `unit` to `end`, as DDIM goes."""
        return end + self.paths.middle * (unit - end / self.paths.top)

    def train(self, data: dict[str, Tensor], settings: TrainConfig) -> Iterator[tuple[int, float, float]]:
        """(examples seen, losses at both levels) of each step; the averaged network stays in `network` at the end."""
        shape, config = self.paths.trained.shape, self.paths.trained.config
        nothing = np.zeros((0, *shape.size), np.uint8), np.zeros(0, np.int64)
        objective = ImageObjective(config, shape, nothing, nothing)
        objective.model = self.network
        optimizers = Optimizers(objective.parameter_groups(), settings, own_device())
        order, budget = DataOrder(len(data["ends"]), settings.seed), Budget(settings)
        average, size = PowerEMA(self.network, settings.ema_std), settings.batch_size
        for seen in range(0, budget.total or 0, size):
            unit, states, ends, labels = (
                data[name][order(seen, seen + size)].to(own_device()) for name in ("noise", "states", "ends", "labels")
            )
            first = self.jump(self.network, self.paths.top * unit, self.paths.top, labels)
            own = torch.arange(size, device=unit.device) % 2 == 0
            x = torch.where(own[:, None, None, None], self.state(unit, first.detach()), states)
            second = self.jump(self.network, x, self.paths.middle, labels)
            losses = [(guess - ends).square().mean() for guess in (first, second)]
            optimizers.zero_grad()
            (losses[0] + losses[1]).backward()
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
            optimizers.set_learning_rate(budget.learning_rate(seen))
            optimizers.step(~norm.isfinite())
            average.update(self.network, average.kept(seen + size, size))
            yield seen + size, float(losses[0].detach()), float(losses[1].detach())
        self.network = average.model

    @torch.inference_mode()
    def draw(self, labels: NDArray[np.int64], evaluations: int) -> Images:
        """Images of `labels` [N] with one evaluation or two, from the noise that the teacher would begin with."""
        parts = []
        for start in range(0, len(labels), BATCH):
            some = torch.from_numpy(labels[start : start + BATCH]).to(own_device())
            seeds = [drawing.sample_seed(0, start + i) for i in range(len(some))]
            unit = SampleNoise(seeds, self.paths.trained.shape.size, own_device())()
            end = self.jump(self.network, self.paths.top * unit, self.paths.top, some)
            if evaluations == 2:
                end = self.jump(self.network, self.state(unit, end), self.paths.middle, some)
            parts.append(pictures.to_uint8(end.cpu()))
        return np.concatenate(parts)


class Yardstick:
    """The judge's distance of samples to training images, at the count at which test images give the floor."""

    def __init__(self, dataset: Path, judge: Path) -> None:
        data = ImageDataset.open(dataset)
        self.judge, mixture = Judge.open(judge), np.ones(data.classes)
        chosen = {
            split: in_proportion(data.labels(split), mixture, REFERENCE, shuffled=True) for split in ("train", "test")
        }
        self.train, test = (self.judge.examine(data.images(s)[np.sort(c)]).features for s, c in chosen.items())
        self.count, self.floor = len(test), metrics.frechet_distance(test, self.train)

    def of(self, images: Images, labels: NDArray[np.int64]) -> dict[str, Any]:
        """Mean over disjoint groups of as many as the floor is of; labels come in turn, so each has all classes."""
        answers = self.judge.examine(images)
        groups = [answers.features[i : i + self.count] for i in range(0, len(images) - self.count + 1, self.count)]
        distance = float(np.mean([metrics.frechet_distance(group, self.train) for group in groups]))
        return {
            "Fréchet": round(distance, 3),
            "floors": round(distance / self.floor, 2),
            "class": f"{(answers.classes == labels).mean():.1%}",
        }


def teacher_rows(paths: Paths) -> Iterator[tuple[str, int, Callable[[NDArray[np.int64]], Images]]]:
    """(name, evaluations of networks, how to draw): the teacher as the job does, by the ODE, and at two evaluations."""
    trained, ode = paths.trained, paths.settings
    bare = {"guidance": 1.0, "autoguidance": 1.0, "start": "noise"}
    ways = {
        "teacher, its paths": {},
        "teacher, with noise on the way": {"sampler": "dpmpp_sde"},
        "teacher, Heun": {"sampler": "heun", "steps": 2, **bare},
        "teacher, DPM-Solver++(2M)": {"sampler": "dpmpp", "steps": 2, **bare},
        "teacher, DPM-Solver++(2M), all guidance": {"sampler": "dpmpp", "steps": 2, "start": "noise"},
    }
    for name, changes in ways.items():
        settings = ode.model_copy(update=changes)

        def draw(labels: NDArray[np.int64], settings: ImageSample = settings) -> Images:
            sigmas = drawing.choose_sigmas(settings, trained.process)
            return drawing.draw(trained, settings, labels, sigmas, World(0, 1, own_device())).images

        yield name, drawing.evaluations(settings), draw


def main() -> None:
    options = parser(__doc__)
    for name, what in (("model", "train"), ("dataset", "prepare-data"), ("judge", "train-judge")):
        options.add_argument(f"--{name}", type=Path, required=True, help=f"folder that {what} wrote")
    options.add_argument("--pairs", type=int, default=8000, help="paths of the teacher")
    options.add_argument("--examples", type=int, default=64_000, help="of the student's training, an endpoint each")
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--rate", type=float, default=0.01, help="Muon's learning rate")
    options.add_argument("--middle", type=float, default=1.5, help="noise level of the second evaluation")
    options.add_argument("--count", type=int, default=1000, help="samples of each row")
    options.add_argument("--seed", type=int, default=1, help="of the student's training")
    options.add_argument("--student_only", action="store_true", help="without the rows of the teacher")
    options.add_argument("--work", type=Path, help="folder in which paths stay; default: a temporary one")
    chosen = options.parse_args()
    trained = load_model(chosen.model, own_device())
    drawn = {"sampler": "dpmpp", "steps": 16, "sigma_max": 20.0, "start": "estimate", "batch_size": BATCH}
    guided = {"guidance": 1.2, "guidance_low": 0.2, "guidance_high": 5.0}
    paths = Paths(trained, ImageSample(**drawn, **guided, autoguidance=1.25 if trained.guide else 1.0), chosen.middle)
    began = time.monotonic()
    with work_folder(chosen.work) as folder:
        data = paths.collected(chosen.pairs, folder)
    solved = time.monotonic() - began
    student = Student(paths)
    settings = TrainConfig(
        examples=chosen.examples, batch_size=chosen.batch, seed=chosen.seed, optimizer="muon",
        muon_learning_rate=chosen.rate, learning_rate=1e-3, warmup_examples=1000, ema_std=0.1,
    )  # fmt: skip
    steps = chosen.examples // chosen.batch
    for number, (seen, first, second) in enumerate(student.train(data, settings)):
        if number % max(1, steps // 20) == 0:
            print(f"{time.monotonic() - began:.0f} s, {seen} examples: {first:.4f}, {second:.4f}", flush=True)
    trained_in = time.monotonic() - began - solved
    yardstick, labels = (
        Yardstick(chosen.dataset, chosen.judge),
        np.arange(chosen.count) % len(trained.shape.class_names),
    )
    rows = [
        {"": name, "evaluations": count, **yardstick.of(draw(labels), labels)}
        for name, count, draw in (() if chosen.student_only else teacher_rows(paths))
    ]
    for count in (1, 2):
        name = f"student, {count} evaluation{'s'[: count - 1]}"
        rows.append({"": name, "evaluations": count, **yardstick.of(student.draw(labels, count), labels)})
    title = (
        f"{chosen.count} samples, floor {yardstick.floor:.3f} (n = {yardstick.count}), one training of"
        f" {chosen.examples} examples on {len(data['ends'])} paths; paths {solved:.0f} s, training {trained_in:.0f} s"
    )
    publish("few-steps", title, rows, chosen.out)


if __name__ == "__main__":
    main()
