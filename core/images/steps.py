"""The steps of an image pipeline: folders in, a folder out. See core/steps.py for what calls them."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core import noise, samplers, storage
from core.config import TrainConfig, validate
from core.errors import UserError
from core.images import pictures
from core.images.config import ImageData, ImageEvaluate, ImageModel, ImageSample
from core.images.dataset import ImageDataset
from core.images.model import ImageShape, NoiseProcess, TrainedModel, describe, load_model, save_model
from core.images.objective import ImageDiffusion, guided
from core.processes import parts as parallel
from core.processes import world as distributed
from core.processes.world import World
from core.randomness import seed_of
from core.samplers import Denoiser
from core.storage.model_folder import DESCRIPTION, load_weights, read_description, read_weights
from core.training import precision
from core.training.fitting import fit_into
from core.training.loop import FitResult

Section = Mapping[str, Any]
GRID_ROWS = 10
TRAJECTORY_SAMPLES, TRAJECTORY_FRAMES = 20, 40


def prepare_data(data: Section, out: Path) -> dict[str, Any]:
    """Reads, checks, splits and hashes the images that `data` names into the folder `out`."""
    from core.images.data import prepare_data as prepare

    return prepare(validate(ImageData, data, "data"), out)


def train_judge(evaluate: Section, dataset: Path, out: Path) -> dict[str, Any]:
    """Trains the classifier that judges samples, on the real training split."""
    from core.images.judge import train

    return train(validate(ImageEvaluate, evaluate, "evaluate"), dataset, out)


def train(
    model: Section,
    train: Section,
    dataset: Path,
    out: Path,
    *,
    objective: str = "diffusion",
    work: str | None = None,
    warm_start: Path | None = None,
) -> dict[str, Any]:
    """Trains a diffusion model of the images in `dataset` into the model folder `out`.

    Checkpoints go to `<work>/<key of what is trained>`; `work` defaults to TEXTDIFFUSION_WORK, then to a folder
    beside `out`. Run again after a kill it goes on from there.

    Raises:
        UserError: the configuration does not suit the data.
    """
    if objective != "diffusion":
        raise UserError(f"objective: found {objective!r}; images allow: diffusion")
    config, settings = validate(ImageModel, model, "model"), validate(TrainConfig, train, "train")
    data = ImageDataset.open(dataset)
    shape = shape_of(data)
    train_split, validation_split = ((data.images(split), data.labels(split)) for split in ("train", "validation"))
    goal = ImageDiffusion(config, shape, train_split, validation_split, seed=settings.seed)
    if warm_start is not None:
        load_weights(goal.model, read_weights(warm_start, read_description(warm_start, "images")), str(warm_start))
    beside = {DESCRIPTION: json.dumps(describe(config, shape)).encode()}

    def save(folder: Path, result: FitResult, facts: dict[str, Any]) -> dict[str, Any]:
        return save_model(folder, result.model, config, shape, facts, result.guide)

    return fit_into(
        out,
        goal,
        settings,
        save,
        data_sha256=data.metadata["content_sha256"],
        identity={"model": config.model_dump(mode="json")},
        beside=beside,
        work=work,
        warm_start=warm_start,
    )


def sample(
    sample: Section, model: Path, out: Path, *, autoregressive: Path | None = None, **_: object
) -> dict[str, Any]:
    """Draws images from a trained model: samples.npz, trajectory.npz, grid.png and sample.json in `out`.

    Raises:
        UserError: the model is damaged, or the settings ask for what it cannot do.
    """
    settings = validate(ImageSample, sample, "sample")
    with distributed.world(distributed.LONG) as world:
        trained = load_model(model, world.device)
        labels = choose_labels(settings, trained)
        sigmas = choose_sigmas(settings, trained.process)
        began = time.monotonic()
        drawn = draw(trained, settings, labels, sigmas, world.device, world=world)
        facts = _facts(settings, trained, world, time.monotonic() - began)
        return distributed.by_first(lambda: _write(out, settings, trained, labels, drawn, facts), world)


def evaluations(settings: ImageSample) -> int:
    """Network evaluations (NFE) of an image at most.

    One of the denoiser is one with the class, one without it (inside the interval of guidance) and one of the guide.
    """
    return denoiser_evaluations(settings) * (1 + (settings.guidance != 1) + (settings.autoguidance != 1))


def denoiser_evaluations(settings: ImageSample) -> int:
    """Evaluations of the denoiser, guidance and all, for an image: those of the start and of the steps."""
    return samplers.evaluations(settings.sampler, settings.steps) + (settings.start == "estimate")


def _facts(settings: ImageSample, trained: TrainedModel, world: World, seconds: float) -> dict[str, Any]:
    """What is worth knowing about a sampling, flat."""
    return {
        "sampler": settings.sampler,
        "steps": settings.steps,
        "nfe": evaluations(settings),
        "guidance": settings.guidance,
        "autoguidance": settings.autoguidance,
        "seed": settings.seed,
        "count": settings.count,
        "seconds": round(seconds, 2),
        "device": str(world.device),
        "processes": world.size,
        "weights_sha256": trained.description["weights_sha256"],
    }


def _write(
    out: Path,
    settings: ImageSample,
    trained: TrainedModel,
    labels: NDArray[np.int64],
    drawn: tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64]],
    facts: dict[str, Any],
) -> dict[str, Any]:
    images, frames, frame_sigmas = drawn
    stored = np.where(labels == len(trained.shape.class_names), -1, labels).astype(np.int64)
    with storage.atomic_folder(out) as folder:
        storage.write_bytes(folder / "samples.npz", _npz(images=images, labels=stored))
        storage.write_bytes(folder / "trajectory.npz", _npz(images=frames, sigmas=frame_sigmas))
        storage.write_bytes(folder / "grid.png", pictures.png(grid_by_class(images, stored)))
        storage.write_json(folder / "sample.json", {**facts, "settings": settings.model_dump(mode="json")})
    return facts


def evaluate(
    evaluate: Section,
    dataset: Path,
    judge: Path,
    model: Path,
    samples: Path,
    out: Path,
    *,
    autoregressive: Path | None = None,
    **_: object,
) -> dict[str, Any]:
    """Measures samples against the test split: metrics.json, each metric with floor, count and judge."""
    from core.images.evaluation import evaluate as measure

    settings = validate(ImageEvaluate, evaluate, "evaluate")
    with distributed.world(distributed.LONG) as world:
        return dict(measure(settings, dataset, judge, model, samples, out, world))


def shape_of(data: ImageDataset) -> ImageShape:
    """Shape and classes of a data set."""
    height, width = data.shape[:2]
    return ImageShape(channels=data.channels, height=height, width=width, class_names=tuple(data.class_names))


def choose_labels(settings: ImageSample, trained: TrainedModel) -> NDArray[np.int64]:
    """The class of each sample, in turn; the number of classes stands for none. int64 [count]

    Raises:
        UserError: the model does not know a class that is asked for.
    """
    classes = len(trained.shape.class_names)
    wanted = settings.labels
    if wanted is None:
        wanted = tuple(range(classes)) if trained.config.conditional else (-1,)
    known = classes if trained.config.conditional else 0
    unknown = [label for label in wanted if label >= known]
    if unknown:
        allowed = f"-1 to {known - 1}" if known else "only -1: the model has no classes"
        raise UserError(f"sample.labels: found {unknown[0]}; allowed: {allowed}")
    turns = np.resize(np.array(wanted, np.int64), settings.count)
    return np.where(turns < 0, classes, turns)


def choose_sigmas(settings: ImageSample, process: NoiseProcess) -> Tensor:
    """The noise levels that sampling steps through. float64 [steps + 1]"""
    if settings.grid == "karras":
        return noise.karras_sigmas(settings.steps, settings.sigma_min, settings.sigma_max, settings.rho)
    if settings.grid == "flow":
        return noise.flow_sigmas(settings.steps, settings.sigma_min, settings.sigma_max)
    if settings.steps > len(process.table):
        raise UserError(f"sample.steps: found {settings.steps}; the model's schedule has {len(process.table)}")
    return noise.schedule_sigmas(settings.steps, process.table)


def denoiser_of(
    trained: TrainedModel, settings: ImageSample, labels: NDArray[np.int64], device: torch.device
) -> Denoiser:
    """The model's denoiser for `labels` [B], guided as `settings` say."""
    return guided(
        trained.network,
        trained.process,
        torch.from_numpy(labels).to(device),
        len(trained.shape.class_names),
        scale=settings.guidance,
        interval=(settings.guidance_low, settings.guidance_high),
        guide=trained.guide,
        autoguidance=settings.autoguidance,
    )


@torch.inference_mode()
def draw(
    trained: TrainedModel,
    settings: ImageSample,
    labels: NDArray[np.int64],
    sigmas: Tensor,
    device: torch.device,
    first: int = 0,
    world: World = distributed.ALONE,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64]]:
    """Images for `labels`, numbered from `first`, and the denoising path of the first few.

    Sample i depends on (seed, i) and its label alone, not on the batch it is drawn in. Batches are divided over
    `world`, every process gets all images.

    Returns:
        uint8 [N, H, W(, 3)]; frames uint8 [T, M, H, W(, 3)], the last one finished; their sigmas [T].
    """
    if settings.autoguidance != 1 and trained.guide is None:
        raise UserError("sample.autoguidance: the model has no guide: train it with train.guide_at, or set this to 1")
    number_format = precision.choose(device)
    seeds = [seed_of(settings.seed, "sample", i) for i in range(first, first + len(labels))]
    every = max(1, -(-settings.steps // TRAJECTORY_FRAMES))

    def batch(index: int) -> parallel.Arrays:
        part = slice(index * settings.batch_size, (index + 1) * settings.batch_size)
        source = samplers.SampleNoise(seeds[part], trained.shape.size, device)
        denoiser = denoiser_of(trained, settings, labels[part], device)
        frames: list[NDArray[np.uint8]] = []
        frame_sigmas: list[float] = []

        def record(step: samplers.Step) -> None:
            if step.index % every == 0:  # shown as the variance-preserving state, which fades from noise to image
                state = step.x[:TRAJECTORY_SAMPLES] / (1 + step.sigma**2) ** 0.5
                frames.append(pictures.to_uint8(state.cpu()))
                frame_sigmas.append(step.sigma)

        with number_format.autocast(device):
            begin = float(sigmas[0]) * source()
            if settings.start == "estimate":
                begin = samplers.estimated_start(denoiser, begin, float(sigmas[0]))
            x = samplers.SAMPLERS[settings.sampler](
                denoiser,
                begin,
                sigmas,
                noise=source,
                callback=record if index == 0 else None,
            )
        images = pictures.to_uint8(x.cpu())
        if index > 0:
            return {"images": images}
        frames.append(images[:TRAJECTORY_SAMPLES])
        return {"images": images, "frames": np.stack(frames), "sigmas": np.array([*frame_sigmas, 0.0])}

    parts = parallel.arrays(batch, -(-len(labels) // settings.batch_size), world)
    return np.concatenate([part["images"] for part in parts]), parts[0]["frames"], parts[0]["sigmas"]


def grid_by_class(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A column for each class (twelve at most), ten rows; without classes, the first hundred."""
    classes = np.unique(labels)[:12]
    rows = min([GRID_ROWS, *(int((labels == c).sum()) for c in classes)])
    if len(classes) == 1:
        return pictures.grid(images[: GRID_ROWS * 10], columns=10)
    chosen = [np.flatnonzero(labels == c)[row] for row in range(rows) for c in classes]
    return pictures.grid(images[chosen], columns=len(classes))


def _npz(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
