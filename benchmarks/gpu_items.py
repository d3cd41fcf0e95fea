"""The items of benchmarks/gpu_slot.py. Each returns flat facts, or adds them to `slot.results` as they come."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks import images as quality_of
from benchmarks.contenders import Budget, Ours
from benchmarks.devices import synchronize
from benchmarks.nano_gpt import NanoGPT, training_step
from benchmarks.peers import Diffusers, Lucidrains
from benchmarks.slot import Facts, Slot
from core.images import metrics, sampling
from core.images.dataset import ImageDataset
from core.images.judge import Judge
from core.images.model import NoiseProcess, TrainedModel
from core.modality import run_here
from core.processes.world import World, average_gradients
from core.randomness import Draws, Noise
from core.requests import PrepareDataRequest, TrainJudgeRequest
from core.storage.checkpoint import serialize
from core.training import precision
from core.training.objective import Batch, Objective
from core.training.result import FitResult, InterruptedTrainingError


def rate(result: FitResult) -> float:
    return [row["rate"] for row in result.log if "rate" in row][-1]


def describe(slot: Slot) -> Facts:
    """Card, driver and what torch was built for."""
    facts: Facts = {"torch": torch.__version__, "CUDA": torch.version.cuda, "architectures": torch.cuda.get_arch_list()}
    facts["precision"] = precision.choose(slot.device).reason
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"]
        facts["nvidia-smi"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return facts


def waits(slot: Slot) -> Facts:
    """Where the host waits for the GPU in 200 steps on images and 100 on text, and the longest kernels."""
    kinds = {
        "images": (slot.images(), slot.job.train, 200),
        "diffusion": (slot.texts("diffusion"), slot.text_job.train, 100),
    }
    for name, (objective, settings, steps) in kinds.items():
        activities = [torch.profiler.ProfilerActivity.CPU]
        if slot.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            slot.train(objective, settings, slot.steps(steps))
        if slot.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        places = [f"{Path(one.filename).name}:{one.lineno}" for one in said if "synchroniz" in str(one.message)]
        slot.results[f"{name}, waits"] = {place: places.count(place) for place in sorted(set(places))}
        with torch.profiler.profile(activities=activities) as profile:
            slot.train(objective, settings, 4)
        key = "self_device_time_total" if slot.device.type == "cuda" else "self_cpu_time_total"
        table = sorted(profile.key_averages(), key=lambda row: -getattr(row, key))[:12]
        slot.results[f"{name}, longest"] = {row.key[:60]: [row.count, round(getattr(row, key))] for row in table}
    return {}


def resume(slot: Slot) -> Facts:
    """Whether a training that was stopped, or not recorded, ends with the same weights, without and with
    train.deterministic."""
    steps = slot.steps(60)
    for deterministic in (False, True):
        for name in ("images", "diffusion"):
            settings = slot.job.train if name == "images" else slot.text_job.train

            def build(name: str = name) -> Objective:
                return slot.images() if name == "images" else slot.texts(name)

            torch.manual_seed(0)
            hashes, label = [], f"{name}, deterministic={deterministic}"
            whole = slot.train(build(), settings, steps, f"{label} whole", deterministic=deterministic)
            for again in ("again", "stopped", "kernel by kernel"):
                torch.manual_seed(0)
                objective, folder = build(), f"{label} {again}"
                ways = {"deterministic": deterministic, "graphs": again != "kernel by kernel"}
                if again == "stopped":
                    _stop_after(objective, steps // 2)
                    with suppress(InterruptedTrainingError):
                        slot.train(objective, settings, steps, folder, **ways)
                    torch.manual_seed(0)
                    objective = build()
                hashes.append(_sha(slot.train(objective, settings, steps, folder, **ways)))
            slot.results[f"{label}, repeated"] = hashes[0] == _sha(whole)
            slot.results[f"{label}, resumed"] = hashes[1] == _sha(whole)
            slot.results[f"{label}, kernel by kernel"] = hashes[2] == _sha(whole)
    return {}


def _sha(result: FitResult) -> str:
    return hashlib.sha256(serialize(result.model.state_dict())).hexdigest()


def _stop_after(objective: Objective, steps: int) -> None:
    """Signals this process, as a machine that is taken away would, in the given step."""
    batch, calls = objective.batch, 0

    def counted(indices: Tensor, draws: Draws) -> Batch:
        nonlocal calls
        calls += 1
        if calls == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(indices, draws)

    objective.batch = counted  # type: ignore[method-assign]


def formats(slot: Slot) -> Facts:
    """300 steps in each number format: images a second, the last loss, steps that were skipped."""
    for name in ("fp32", "bf16", "fp16"):
        result = slot.train(slot.images(), slot.job.train, slot.steps(300), precision=name)
        last = [row["loss"] for row in result.log if "loss" in row][-1]
        slot.results[name] = {"images/s": rate(result), "loss": last, "skipped": result.skipped_steps}
    return {}


def rates(slot: Slot) -> Facts:
    """Images a second by batch: as CUDA graphs, kernel by kernel, and compiled."""
    for name, batches in {
        "as graphs": (64, 1024, 256, 4096),
        "compiled": (1024, 64),
        "kernel by kernel": (64, 1024),
    }.items():
        if name == "as graphs" or slot.device.type == "cuda":
            for batch in batches if not slot.tiny else (8,):
                steps = slot.steps(max(40, min(400, 200_000 // batch)))
                ways: Facts = {"graphs": name != "kernel by kernel", "compile": name == "compiled"}
                result = slot.train(slot.images(), slot.job.train, steps, batch_size=batch, **ways)
                slot.results[f"batch {batch}, {name}"] = rate(result)
    return {}


def peers(slot: Slot) -> Facts:
    """Images a second of diffusers and denoising-diffusion-pytorch, with autocast as ours; lengths as above.

    A peer that is not installed is left out, and the results say so.
    """
    number_format = precision.choose(slot.device)
    # their networks halve the sides twice
    sizes: Any = SimpleNamespace(shape=(16, 16) if slot.tiny else (28, 28), classes=10)
    for kind in (Diffusers, Lucidrains):
        try:
            peer = kind()
            peer.network(sizes)
        except ImportError as error:
            slot.results[kind.name] = f"left out: {error}"
            continue
        for batch in (128, 1024) if not slot.tiny else (2,):
            network = peer.network(sizes).to(slot.device)
            optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
            images = torch.rand(batch, 1, *sizes.shape, device=slot.device) * 2 - 1
            labels = torch.randint(0, 10, (batch,), device=slot.device)

            def step(peer: Any = peer, network: nn.Module = network, optimizer: Any = optimizer,
                     images: Tensor = images, labels: Tensor = labels) -> None:  # fmt: skip
                with number_format.autocast(slot.device):
                    loss = peer.loss(network, images, labels)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()

            slot.results[f"{peer.name}, batch {batch}"] = round(batch * _per_second(step, slot, 40), 1)
    return {}


def _per_second(step: Callable[[], None], slot: Slot, steps: int) -> float:
    count = slot.steps(steps)
    for _ in range(max(1, count // 4)):
        step()
    synchronize(slot.device)
    began = time.monotonic()
    for _ in range(count):
        step()
    synchronize(slot.device)
    return count / (time.monotonic() - began)


def quality(slot: Slot) -> Facts:
    """A minute of the job, and 5,000 of its samples judged."""
    name = "mnist-training" if slot.data_dir and not slot.tiny else "digits"
    source = {"source": "mnist", "data_dir": slot.data_dir} if name == "mnist-training" else {"source": "digits"}
    dataset, judged = slot.work / "dataset", slot.work / "judge"
    run_here(PrepareDataRequest(modality="images", data=source, out=dataset))
    epochs = {"judge_epochs": 0.2 if slot.tiny else 8}
    run_here(TrainJudgeRequest(modality="images", evaluate=epochs, dataset=dataset, out=judged))
    data, judge, ours = ImageDataset.open(dataset), Judge.open(judged), Ours("ours", name)
    trained = ours.train(dataset, Budget(minutes=0.02 if slot.tiny else 1.0), slot.work / "quality")
    slot.results |= {"job": name, "images": trained.examples, "training, s": trained.seconds}
    train = judge.examine(np.array(data.images("train")[:20_000]))
    real = judge.examine(np.array(data.images("test")[:5000]))
    slot.results["floor"] = metrics.frechet_distance(real.features, train.features)
    distance, accuracy, per_second = quality_of.quality(trained, ours, data, judge, train, 100 if slot.tiny else 5000)
    return {"Fréchet": distance, "class accuracy": accuracy, "samples/s": per_second}


def text(slot: Slot) -> Facts:
    """Tokens a second of our models, and of nanoGPT at the same width, depth, batch and context."""
    job, on_gpu = slot.text_job, slot.device.type == "cuda"
    sizes, context = job.model.transformer, job.model.context
    batch = 2 if slot.tiny else job.train.batch_size
    ids = torch.randint(0, 1024, (batch, context + 1), device=slot.device)
    for name, compiled in (("autoregressive", False), ("diffusion", False), ("nanoGPT", on_gpu),
                           ("autoregressive", on_gpu)):  # fmt: skip
        label = name + ", compiled" * compiled
        if label in slot.results:
            continue
        if name == "nanoGPT":
            network = NanoGPT(1024, context, sizes).to(slot.device)
            step = training_step(network, ids, precision.choose(slot.device), compiled=compiled)
            slot.results[label] = round(_per_second(step, slot, 300) * batch * context)
        else:
            result = slot.train(slot.texts(name), job.train, slot.steps(400), compile=compiled)
            slot.results[label] = round(rate(result) * context)
    return {}


def deterministic(slot: Slot) -> Facts:
    """What `train.deterministic` costs: examples a second without and with it, recorded as trainings are."""
    for name in ("images", "autoregressive", "diffusion"):
        settings = slot.job.train if name == "images" else slot.text_job.train
        for wanted in (False, True):
            objective = slot.images() if name == "images" else slot.texts(name)
            result = slot.train(objective, settings, slot.steps(300), deterministic=wanted)
            slot.results[f"{name}, deterministic={wanted}"] = rate(result)
    return {}


def draw(slot: Slot) -> Facts:
    """Samples a second with guidance, as the job draws them; whether recorded paths are those of the sampler, and its
    noise is that of a CPU."""
    objective, job = slot.images(), slot.job
    network = objective.model.to(slot.device).eval().requires_grad_(False)
    trained = TrainedModel(network, NoiseProcess(job.model.process), objective.shape, job.model, {}, network)
    settings = job.sample.model_copy(
        update={"count": 20 if slot.tiny else 5000, "batch_size": 10 if slot.tiny else 1000}
    )
    labels, sigmas = sampling.choose_labels(settings, trained), sampling.choose_sigmas(settings, trained.process)
    began = time.monotonic()
    drawn = sampling.draw(trained, settings, labels, sigmas, World(0, 1, slot.device)).images
    seconds = time.monotonic() - began
    last = slice(len(labels) - settings.batch_size, None)  # by then paths are repeated from a recording
    seeds = [sampling.sample_seed(settings.seed, index) for index in range(len(labels))[last]]
    alone = sampling.draw_batch(trained, settings, seeds, labels[last], sigmas, slot.device)
    here, there = (Noise(seeds, where) for where in (slot.device, "cpu"))
    uniforms = torch.equal(here.uniform(100).cpu(), there.uniform(100))
    normals = (here.normal(100).cpu() - there.normal(100)).abs().max()
    return {
        "samples/s": round(len(labels) / seconds, 1),
        "uniforms as a CPU's": uniforms,
        "normals from a CPU's": float(normals),
        "drawing, s": round(seconds, 2),
        "pixels as kernel by kernel": float((drawn[last] == alone).mean()),
    }


def nccl(slot: Slot) -> Facts:
    """A group of one process: that the library is there, and what one exchange of gradients takes."""
    backend = "nccl" if slot.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{slot.work / 'group'}", rank=0, world_size=1)
    try:
        objective = slot.images()
        model, draws = objective.model.to(slot.device), Draws(0, 0, 0, 8, 8, slot.device)
        objective.loss(model, objective.batch(torch.arange(8), draws)).mean().backward()
        world = World(0, 2, slot.device)  # of two, so that gradients are exchanged; the group's one member is both
        return {
            "backend": backend,
            "exchanges/s": round(_per_second(lambda: average_gradients(model, world), slot, 50), 1),
        }
    finally:
        dist.destroy_process_group()
