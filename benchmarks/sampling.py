"""Sampling: quality against network evaluations, for every sampler here, 1000 ancestral steps, and diffusers' solver.

    python -m benchmarks.sampling --model RUN/steps/train --dataset RUN/steps/prepare-data --judge RUN/steps/train-judge

Draws the same count of the same model by each sampler and asks one judge. NFE are evaluations of the network for an
image. The reference is ancestral sampling (Ho et al. 2020) in 1000 steps, on DDPM's own grid and on this project's: the
better of the two. Seeds go round all samplers, so a busy machine slows all of them; the table has medians over seeds.
diffusers' EDMDPMSolverMultistepScheduler, as ODE and as SDE, gets the same denoiser, in EDM's form, from the same noise
at the same noise levels; samples/s are those of both packages' loops around one network.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.results import parser, publish
from core import noise, samplers
from core.evaluation import Sampling
from core.images import metrics, pictures
from core.images import sampling as drawing
from core.images.config import ImageSample
from core.images.dataset import ImageDataset
from core.images.evaluation import REFERENCE as REAL
from core.images.guidance import denoiser_of
from core.images.judge import Judge
from core.images.model import TrainedModel, load_model
from core.images.samples import Samples, in_proportion
from core.processes.world import World, own_device
from core.randomness import Noise, seed_of
from core.samplers import Denoiser
from core.training import precision
from factory.job import ImageTrainingJob
from pipelines.jobs import load_job

REFERENCE = "ancestral"
WITHIN = 1.05  # of the reference's distance
PEERS = {"dpmpp": "dpmsolver++", "dpmpp_sde": "sde-dpmsolver++"}  # names here and in diffusers
Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Way:
    """One way to draw: a sampler of this project with its settings, or diffusers' (`peer`) at the same noise levels."""

    name: str
    settings: ImageSample
    peer: bool = False

    @property
    def evaluations(self) -> int:
        """Of the denoiser for an image; guidance makes each of them two or three of networks, the same for all."""
        return drawing.denoiser_evaluations(self.settings)

    def draw(self, trained: TrainedModel, labels: NDArray[np.int64], seed: int) -> Images:
        settings = self.settings.model_copy(update={"seed": seed})
        sigmas = drawing.choose_sigmas(settings, trained.process)
        if self.peer:
            return draw_by_diffusers(trained, settings, labels)
        return drawing.draw(trained, settings, labels, sigmas, World(0, 1, own_device())).images


def ways(counts: Sequence[int], ancestral: int, base: ImageSample) -> list[Way]:
    """Every sampler at each number of steps, and the reference on two grids."""
    found = []
    for count in counts:
        after = count - (base.start == "estimate")  # evaluations that the start leaves for steps
        for name in samplers.SAMPLERS:
            # Heun's method evaluates twice a step: as many evaluations, not as many steps, make a fair row
            own = max(2, (after + 1) // 2) if name == "heun" else after
            found.append(Way(name, base.model_copy(update={"sampler": name, "steps": own})))
        for name, theirs in PEERS.items():
            settings = base.model_copy(update={"sampler": name, "steps": after})
            found.append(Way(f"diffusers {theirs}", settings, peer=True))
    for grid in ("ddpm", "karras"):
        settings = base.model_copy(update={"sampler": "ddpm", "grid": grid, "steps": ancestral})
        found.append(Way(f"{REFERENCE}, {grid} grid", settings))
    return found


@torch.inference_mode()
def draw_by_diffusers(trained: TrainedModel, settings: ImageSample, labels: NDArray[np.int64]) -> Images:
    """Images for `labels` by diffusers' DPM-Solver++(2M) for EDM, from the noise that this project would begin with.

    Its SDE form draws the noise of its steps for the whole batch, from one generator.
    """
    where = own_device()
    seeds = [seed_of(settings.seed, "sample", i) for i in range(len(labels))]
    parts = []
    for start in range(0, len(labels), settings.batch_size):
        part = slice(start, start + settings.batch_size)
        denoiser = denoiser_of(trained, settings, labels[part], where)
        begin = Noise(seeds[part], where).normal(*trained.shape.size)
        with precision.choose(where).autocast(where):
            made = solve_by_diffusers(denoiser, begin, settings, trained.process.sigma_data, seeds[start])
        parts.append(pictures.to_uint8(made.cpu()))
    return np.concatenate(parts)


def solve_by_diffusers(
    denoiser: Denoiser, begin: Tensor, settings: ImageSample, sigma_data: float, seed: int = 0
) -> Tensor:
    """diffusers' solver along the Karras noise levels of `settings`, from standard normal noise `begin` [B, ...].

    The scheduler expects the output F of an EDM network, D = c_skip x + c_out F (EDM, equation 7). Solving that for F
    is exact whatever the network predicts, so the solver sees the very denoiser that this project's samplers see.
    """
    from diffusers import EDMDPMSolverMultistepScheduler

    scheduler: Any = EDMDPMSolverMultistepScheduler(
        sigma_min=settings.sigma_min,
        sigma_max=settings.sigma_max,
        sigma_data=sigma_data,
        rho=settings.rho,
        algorithm_type=PEERS[settings.sampler],
    )
    generator = torch.Generator(begin.device).manual_seed(seed)
    scheduler.set_timesteps(settings.steps)
    x = settings.sigma_max * begin
    if settings.start == "estimate":
        x = samplers.estimated_start(denoiser, x, settings.sigma_max)
    for index, step in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[index].to(x)
        output = noise.coefficients("edm", sigma, sigma_data).target(x, denoiser(x, sigma))
        x = scheduler.step(output, step, x, generator=generator).prev_sample
    return x


class Yardstick:
    """Fréchet distance and accuracy as the step `evaluate` measures them, without its other metrics.

    Attributes:
        n: images on a side of a distance.
        floor: the distance of as many real test images.
    """

    def __init__(self, judge: Judge, data: ImageDataset, labels: NDArray[np.int64]) -> None:
        self.judge, self.labels = judge, labels
        shares = np.bincount(labels, minlength=data.classes)
        reference = in_proportion(data.labels("train"), shares, REAL, shuffled=True)
        self.train = judge.examine(data.images("train")[np.sort(reference)]).features
        matched = in_proportion(data.labels("test"), shares, data.count("test"), shuffled=True)
        self.n = min(len(labels), len(matched))
        real = judge.examine(data.images("test")[matched[: self.n]]).features
        self.floor = metrics.frechet_distance(real, self.train)

    def measure(self, images: Images) -> tuple[float, float]:
        """(Fréchet distance, class accuracy) of as many images as there are labels."""
        drawn = Samples(images, self.labels, Sampling()).interleaved()
        verdict = self.judge.examine(drawn.images)
        whole = range(0, len(images) - self.n + 1, self.n)
        parts = [metrics.frechet_distance(verdict.features[at : at + self.n], self.train) for at in whole]
        return statistics.mean(parts), float((verdict.classes == drawn.labels).mean())


def measured(field: Sequence[Way], trained: TrainedModel, yardstick: Yardstick, seeds: int) -> list[dict[str, Any]]:
    """A row for each way: medians over seeds."""
    found: list[list[tuple[float, float, float]]] = [[] for _ in field]
    for seed in range(seeds):
        for way, place in zip(field, found, strict=True):
            began = time.perf_counter()
            images = way.draw(trained, yardstick.labels, seed)  # numpy: the device is done
            rate = len(images) / (time.perf_counter() - began)
            place.append((*yardstick.measure(images), rate))
            print(f"{way.name}, {way.settings.steps} steps: Fréchet {place[-1][0]:.3f}, {rate:.3g}/s", file=sys.stderr)
    rows = []
    for way, runs in zip(field, found, strict=True):
        distances, accuracies, rates = zip(*runs, strict=True)
        spread = round(statistics.stdev(distances), 4) if seeds > 1 else None
        rows.append(
            {
                "sampler": way.name,
                "steps": way.settings.steps,
                "NFE": way.evaluations,
                "Fréchet": statistics.median(distances),
                "sd": spread,
                "accuracy": statistics.median(accuracies),
                "samples/s": statistics.median(rates),
            }
        )
    return rows


def compare(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """The reference, and for each other sampler a sentence on its fewest evaluations within 5 % of it.

    Adds `of reference`, the ratio of distances, to every row.
    """
    reference = min((row for row in rows if row["sampler"].startswith(REFERENCE)), key=lambda row: row["Fréchet"])
    for row in rows:
        row["of reference"] = row["Fréchet"] / reference["Fréchet"] if reference["Fréchet"] else math.inf
    return reference, list(_sentences(rows, reference))


def _sentences(rows: Sequence[dict[str, Any]], reference: dict[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys(row["sampler"] for row in rows if not row["sampler"].startswith(REFERENCE)):
        good = [row for row in rows if row["sampler"] == name and row["of reference"] <= WITHIN]
        if not good:
            yield f"- {name}: nowhere within 5 % of the reference"
            continue
        best = min(good, key=lambda row: row["NFE"])
        fewer = reference["NFE"] / best["NFE"]
        yield (
            f"- {name}: within 5 % from {best['NFE']} evaluations on, {fewer:.0f} x fewer than the reference;"
            f" {best['samples/s']:.3g} samples/s"
        )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", type=Path, required=True, help="folder of a trained image model with classes")
    options.add_argument("--dataset", type=Path, required=True, help="folder that prepare-data wrote")
    options.add_argument("--judge", type=Path, required=True, help="folder that train-judge wrote")
    options.add_argument("--count", type=int, default=1000, help="samples of each")
    options.add_argument("--steps", default="4,6,8,12,16,20,35,50,100", help="numbers of steps")
    options.add_argument("--ancestral", type=int, default=1000, help="steps of the reference")
    options.add_argument("--job", default="mnist-training", help="whose section sample says how to draw")
    options.add_argument("--seeds", type=int, default=3)
    chosen = options.parse_args()
    trained, data = load_model(chosen.model, own_device()), ImageDataset.open(chosen.dataset)
    job = load_job(chosen.job)
    assert isinstance(job, ImageTrainingJob)
    without = {"autoguidance": 1.0} if trained.guide is None else {}
    base = job.sample.model_copy(update={"count": chosen.count, "feedback": 0.0, **without})  # not all ways can have it
    yardstick = Yardstick(Judge.open(chosen.judge), data, drawing.choose_labels(base, trained))
    field = ways([int(count) for count in chosen.steps.split(",")], chosen.ancestral, base)
    rows = measured(field, trained, yardstick, chosen.seeds)
    reference, sentences = compare(rows)
    title = (
        f"Sampling one model, n = {yardstick.n}, floor {yardstick.floor:.3g}, judge {yardstick.judge.sha256[:12]},"
        f" guidance {base.guidance:g}, autoguidance {base.autoguidance:g};"
        f" reference: {reference['sampler']}, {reference['NFE']} evaluations\n\n"
    )
    publish("sampling", title + "\n".join(sentences), rows, chosen.out,
            lambda axes: _draw(axes, rows, reference, yardstick.floor))  # fmt: skip


def _draw(axes: Any, rows: list[dict[str, Any]], reference: dict[str, Any], floor: float) -> None:
    for name in dict.fromkeys(row["sampler"] for row in rows):
        mine = sorted((row for row in rows if row["sampler"] == name), key=lambda row: row["NFE"])
        axes.loglog([row["NFE"] for row in mine], [row["Fréchet"] for row in mine], "o-", markersize=4, label=name)
    axes.axhline(WITHIN * reference["Fréchet"], color="#8a8a8a", linestyle="--", label="reference + 5 %")
    axes.axhline(floor, color="#8a8a8a", linestyle=":", label="floor")
    axes.set_xlabel("network evaluations (NFE)")
    axes.set_ylabel("Fréchet distance")
    axes.legend(frameon=False, fontsize=7)


if __name__ == "__main__":
    main()
