"""What "the same machine" means: that on which a training goes on to the very same weights.

Sums of floating-point numbers depend on their order, and so on how many threads and processes share them and on the
instructions of the processor; products depend on the number format.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from core.processes.world import World
from core.training import threads
from core.training.precision import Precision

log = logging.getLogger(__name__)


def present(world: World, precision: Precision) -> dict[str, Any]:
    """The machine that this is, flat: device, processor and its instructions, threads, processes, precision, torch."""
    number = str(precision.dtype or torch.float32).removeprefix("torch.")
    device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "cpu"
    return {
        "device_kind": device,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "processes": world.size,
        "number_format": number,
        "torch": torch.__version__,
    }


def processor() -> str:
    """The processor's name and the instructions that torch uses of it."""
    name = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        lines = listing.read_text(encoding="utf-8", errors="replace").split("\n")
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def settle_on(
    name: str, before: Mapping[str, Any], world: World, precision: Precision, *, deterministic: bool = False
) -> dict[str, Any]:
    """The present machine; says in one line what differs from that of the checkpoint, if anything.

    Args:
        name: of the training.
        before: the machine that the checkpoint was made on; empty if there is none.
        world: the processes.
        precision: as chosen.
        deterministic: `train.deterministic`, without which CUDA repeats nothing to the last bit.
    """
    threads.keep(before)
    now = present(world, precision)
    if world.is_first:
        log.info("%s in %s", name, precision.reason)
        other = [f"{key} {before[key]} -> {now[key]}" for key in now if key in before and before[key] != now[key]]
        if before and world.device.type == "cuda" and not deterministic:
            other.append("sums, for want of train.deterministic")
        if other:
            log.warning("%s goes on with other %s: its weights agree with an undisturbed training's to rounding only",
                        name, ", ".join(other))  # fmt: skip
    return now
