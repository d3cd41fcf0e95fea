"""An item of benchmarks/gpu_slot.py: text, drawn."""

from __future__ import annotations

import time
from functools import partial
from unittest import mock

import torch

from benchmarks.devices import synchronize
from benchmarks.slot import Facts, Slot
from core.randomness import Noise
from core.text import autoregressive, generation
from core.text.denoiser import Diffusion
from core.training import graphs

NEVER = 10**9


def write(slot: Slot) -> Facts:
    """Tokens a second as the job draws them, recorded and kernel by kernel, and the share of them that are the same."""
    network = slot.texts("diffusion").model.to(slot.device).eval().requires_grad_(False)
    assert isinstance(network, Diffusion)
    sample, length = slot.text_job.sample, network.config.context
    start = torch.zeros(2 if slot.tiny else sample.batch_size, 0, dtype=torch.long, device=slot.device)
    settings = generation.Settings(sample.sampler, 2 if slot.tiny else sample.steps, sample.temperature)
    blocks = partial(generation.generate, network, start, length, network.config.block(None), settings)
    ways = {
        "autoregressive": partial(autoregressive.generate, network.autoregressive, start, length),
        "diffusion": blocks,
    }
    facts: Facts = {}
    for name, draw in ways.items():
        drawn = []
        for way, worth in (("recorded", graphs.WORTH), ("kernel by kernel", NEVER)):
            with mock.patch.object(graphs, "WORTH", worth):
                draw(Noise(range(len(start)), slot.device))  # what is done once
                synchronize(slot.device)
                began = time.monotonic()
                drawn.append(draw(Noise(range(len(start)), slot.device)))
                synchronize(slot.device)
            slot.results[f"{name}, {way}"] = round(drawn[-1].numel() / (time.monotonic() - began))
        facts[f"{name}, the same"] = float((drawn[0] == drawn[1]).float().mean())
    return facts
