"""Drawing images from a trained model: which classes, which noise levels, batches over processes, files."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core import noise, samplers, storage
from core.config import validate
from core.errors import UserError
from core.evaluation import Sampling
from core.images import pictures
from core.images.classes import NONE, class_indices
from core.images.config import ImageSample
from core.images.denoising_path import TRAJECTORY_SAMPLES, DenoisingPath, DrawnImages
from core.images.evidence import Evidence, lowest
from core.images.model import NoiseProcess, TrainedModel, load_model
from core.images.prepared import Prepared
from core.processes import parts as parallel
from core.processes import world as distributed
from core.processes.world import World
from core.randomness import Noise, seed_of
from core.requests import Facts, SampleRequest, ShardDrawer, ShardRequest
from core.training import precision

log = logging.getLogger(__name__)
TRAJECTORY_FRAMES = 40


def sample(request: SampleRequest, *, tiled: bool = False) -> Facts:
    """Draws images from a trained model: samples.npz, trajectory.npz, grid.png and sample.json.

    Args:
        request: which model, how, and where to.
        tiled: draw in batches of one size, `tile`, whatever `batch_size` says: the same bits for any count.

    Raises:
        UserError: the model is damaged, or the settings ask for what it cannot do.
    """
    settings = validate(ImageSample, request.sample, "sample")
    with distributed.world(distributed.LONG) as world:
        return sample_into(request.out, load_model(request.model, world.device), settings, world, tiled=tiled)


def sample_into(out: Path, trained: TrainedModel, settings: ImageSample, world: World, *, tiled: bool = False) -> Facts:
    """Draws images from a model in memory, and writes what `sample` writes into the folder `out`.

    Raises:
        UserError: the settings ask for what the model cannot do.
    """
    labels = choose_labels(settings, trained)
    sigmas = choose_sigmas(settings, trained.process)
    began = time.monotonic()
    drawn = draw(trained, settings, labels, sigmas, world, tiled=tiled)
    facts = _facts(settings, trained, world, time.monotonic() - began, drawn.redrawn)

    def write() -> Facts:
        stored = _stored(labels, trained)
        with storage.atomic_folder(out, "sample.json") as folder:
            storage.write_bytes(folder / "samples.npz", pictures.npz(images=drawn.images, labels=stored))
            storage.write_bytes(folder / "trajectory.npz", pictures.npz(images=drawn.frames, sigmas=drawn.sigmas))
            storage.write_bytes(folder / "grid.png", pictures.png(pictures.grid_by_class(drawn.images, stored)))
            facts.write(folder)
        return facts.facts()

    return distributed.by_first(write, world)


def shard_drawer(request: ShardRequest) -> ShardDrawer:
    """Ranges of very many images, each an .npz of `images` and `labels` as samples.npz has them.

    Raises:
        UserError: the model is damaged, or the settings ask for what it cannot do.
    """
    settings = validate(ImageSample, {**request.sample, "count": request.size}, "sample")
    if settings.redraw:
        raise UserError("sample.redraw: a sample in a shard depends on its number alone, not on others; set it to 0")
    world = World(0, 1, distributed.own_device())
    trained = load_model(request.model, world.device)
    sigmas = choose_sigmas(settings, trained.process)
    turn = len(settings.labels or trained.shape.class_names) if trained.config.conditional else 1
    cycle = choose_labels(settings.model_copy(update={"count": turn}), trained)

    def shard(start: int, stop: int) -> bytes:
        labels = cycle[np.arange(start, stop) % turn]
        drawn = draw(trained, settings, labels, sigmas, world, first=start)
        return pictures.npz(images=drawn.images, labels=_stored(labels, trained))

    facts = settings.model_dump(mode="json", exclude={"count", "batch_size"})
    return ShardDrawer(shard, ".npz", {"sample": facts, "weights_sha256": trained.description["weights_sha256"]})


def choose_labels(settings: ImageSample, trained: TrainedModel) -> NDArray[np.int64]:
    """The class of each sample, in turn; the number of classes means none. int64 [count]

    Raises:
        UserError: the model does not know a class that is asked for.
    """
    classes = len(trained.shape.class_names)
    known = trained.shape.class_names if trained.config.conditional else ()
    wanted = list(range(len(known))) or [NONE]
    if settings.labels is not None:
        wanted = class_indices(settings.labels, known, "sample.labels")
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


@torch.inference_mode()
def draw(
    trained: TrainedModel,
    settings: ImageSample,
    labels: NDArray[np.int64],
    sigmas: Tensor,
    world: World,
    first: int = 0,
    tiled: bool = False,
) -> DrawnImages:
    """Images for `labels` [N], numbered from `first`, and the denoising path of the first few.

    Sample i depends on (seed, i) and its label alone, not on the batch it is drawn in: to the last bit where batches
    are `tiled`, else up to the rounding that a batch's size decides. With `sample.redraw` the lowest of all N samples
    are drawn again, so which they are depends on the others. Batches are divided over `world`, every process gets all
    images.

    Raises:
        UserError: there is no guide for autoguidance, or no class for feedback or evidence to speak for.
    """
    if settings.autoguidance != 1 and trained.guide is None:
        raise UserError("sample.autoguidance: the model has no guide: train it with train.guide_at, or set this to 1")
    if settings.feedback and not trained.config.conditional:
        raise UserError("sample.feedback: the model knows no classes; set it to 0")
    with_class = labels != len(trained.shape.class_names)
    if settings.redraw and not with_class.any():
        raise UserError("sample.redraw: no sample is of a class, so none can miss it; set it to 0")
    numbers = np.arange(first, first + len(labels))
    seeds = [sample_seed(settings.seed, int(i)) for i in numbers]
    drawn = _draw(trained, settings, labels, seeds, sigmas, world, tiled)
    if drawn.evidence is None or not len(rows := lowest(drawn.evidence, with_class, settings.redraw)):
        return drawn
    seeds = [seed_of(settings.seed, "sample again", int(i)) for i in numbers[rows]]
    return drawn.redrawn_at(rows, _draw(trained, settings, labels[rows], seeds, sigmas, world, tiled))


def _draw(
    trained: TrainedModel,
    settings: ImageSample,
    labels: NDArray[np.int64],
    seeds: Sequence[int],
    sigmas: Tensor,
    world: World,
    tiled: bool,
) -> DrawnImages:
    """Images for `labels` [N] from noise of `seeds` [N]."""
    size = tile(world.device) if tiled else settings.batch_size
    shown = -(-min(TRAJECTORY_SAMPLES, len(labels)) // size)  # batches that the path is of
    count = -(-len(labels) // size)
    model = Prepared(trained, settings, world.device, count // world.size)

    def batch(index: int) -> parallel.Arrays:
        part = slice(index * size, (index + 1) * size)
        path = DenoisingPath(every=max(1, -(-settings.steps // TRAJECTORY_FRAMES))) if index < shown else None
        evidence = Evidence(sigmas) if settings.redraw else None
        rows = range(*part.indices(len(labels)))
        filled = [*rows, *[rows[-1]] * (size - len(rows))] if tiled else list(rows)
        x = denoise_batch(
            model, settings, [seeds[i] for i in filled], labels[filled], sigmas, world.device, path, evidence
        )
        images = pictures.to_uint8(x)[: len(rows)]
        arrays: parallel.Arrays = {"images": images, **(path.arrays(images) if path else {})}
        return arrays | ({"evidence": evidence.of(x)[: len(rows)].numpy()} if evidence else {})

    parts = parallel.arrays(batch, count, world)
    frames = np.concatenate([part["frames"] for part in parts[:shown]], axis=1)[:, :TRAJECTORY_SAMPLES]
    evidence = np.concatenate([part["evidence"] for part in parts]) if settings.redraw else None
    return DrawnImages(np.concatenate([part["images"] for part in parts]), frames, parts[0]["sigmas"], evidence)


def sample_seed(seed: int, index: int) -> int:
    """The seed of sample `index`'s own noise."""
    return seed_of(seed, "sample", index)


def tile(device: torch.device) -> int:
    """Samples in a batch of fixed size: enough for most of the throughput, at little cost for one alone.

    Convolutions round differently in batches of different sizes, so samples agree to the last bit only if all batches
    are of one size. On two CPU cores 4 of MNIST's UNet take 1.9 times as long as one, and each 0.9 of what it takes
    in a batch of 16.
    """
    return 4 if device.type == "cpu" else 32


@torch.inference_mode()
def draw_batch(
    trained: TrainedModel | Prepared,
    settings: ImageSample,
    seeds: Sequence[int],
    labels: NDArray[np.int64],
    sigmas: Tensor,
    device: torch.device,
    callback: samplers.Callback = None,
) -> NDArray[np.uint8]:
    """Images uint8 [B, H, W(, 3)] from noise of `seeds` [B] (`sample_seed`) for `labels` [B], in one batch."""
    return pictures.to_uint8(denoise_batch(trained, settings, seeds, labels, sigmas, device, callback))


@torch.inference_mode()
def denoise_batch(
    trained: TrainedModel | Prepared,
    settings: ImageSample,
    seeds: Sequence[int],
    labels: NDArray[np.int64],
    sigmas: Tensor,
    device: torch.device,
    callback: samplers.Callback = None,
    evidence: Evidence | None = None,
) -> Tensor:
    """The same before it is rounded to pixels: float [B, C, H, W], about -1 to 1, on the CPU.

    Raises:
        UserError: the network gives what is not finite.
    """
    model = trained if isinstance(trained, Prepared) else Prepared(trained, settings, device)
    chosen = precision.choose(device, settings.precision or model.trained_in)
    for number_format in [chosen, precision.FP32] if chosen.dtype == torch.float16 else [chosen]:
        x = model.solved(number_format, settings, labels, sigmas, Noise(seeds, device), callback, evidence).cpu()
        if x.isfinite().all():
            return x
        log.warning("a batch of images is not finite (%s)", number_format.reason)
    raise UserError("sample: the network's images are not finite; set sample.precision: fp32, or train again")


def evaluations(settings: ImageSample) -> int:
    """Network evaluations (NFE) of an image at most.

    One of the denoiser is one with the class, one without it (where guidance, feedback or evidence need it) and one of
    the guide. The images that are drawn again count as part of each.
    """
    without_class = settings.guidance != 1 or settings.feedback > 0 or settings.redraw > 0
    networks = 1 + without_class + (settings.autoguidance != 1)
    return math.ceil(denoiser_evaluations(settings) * networks * (1 + settings.redraw))


def denoiser_evaluations(settings: ImageSample) -> int:
    """Evaluations of the denoiser, guidance and all, for an image: those of the start and of the steps."""
    return samplers.evaluations(settings.sampler, settings.steps) + (settings.start == "estimate")


def _facts(settings: ImageSample, trained: TrainedModel, world: World, seconds: float, redrawn: int) -> Sampling:
    """How images were drawn."""
    return Sampling(
        sampler=settings.sampler,
        steps=settings.steps,
        nfe=evaluations(settings),
        guidance=settings.guidance,
        autoguidance=settings.autoguidance,
        feedback=settings.feedback,
        seed=settings.seed,
        count=settings.count,
        redrawn=redrawn if settings.redraw else None,
        seconds=round(seconds, 2),
        device=str(world.device),
        processes=world.size,
        weights_sha256=trained.description.get("weights_sha256"),  # none of a network that was never saved
        settings=settings.model_dump(mode="json"),
        class_names=list(trained.shape.class_names) if trained.config.conditional else None,
    )


def _stored(labels: NDArray[np.int64], trained: TrainedModel) -> NDArray[np.int64]:
    """Labels as files have them: -1 means no class."""
    return np.where(labels == len(trained.shape.class_names), -1, labels).astype(np.int64)
