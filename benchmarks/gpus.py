"""What a training step takes on GPUs that nobody has run it on yet. All calculated.

A step on N GPUs takes

    max(FLOP / (N utilisation peak), operators x LAUNCH) + bytes of state moved / memory bandwidth + exchange

FLOP, operators and bytes are counted from the network (benchmarks/workload.py), prices are those of resources.yaml, and
what is assumed stands below. The first step towards better numbers is a measured utilisation: benchmarks.growth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from benchmarks.workload import Work
from pipelines.costs import STARTUP_HOURS
from pipelines.machines import Machine, load_machines

# Assumed, not measured.
UTILISATION = 0.3  # of the peak, by matrix products and convolutions under autocast without torch.compile
LAUNCH = 10e-6  # s: Python and the driver start one operator
LINE = 0.7  # of a link's rate, by an all-reduce
LATENCY = 50e-6  # s: one all-reduce of a few bytes
# From the code.
SMALL_EXCHANGES = 2  # a step: is the loss finite; the slowest clock, with whether to stop or to write a checkpoint
MOVED = (
    13 * 4
)  # bytes a parameter: clip reads and writes the gradient, AdamW 4 + 3 arrays, the average 2 + 1, zeroing 1
RESERVED = 1.5e9  # bytes of a GPU's memory: CUDA context and workspaces


@dataclass(frozen=True)
class Hardware:
    """GPUs of a row of resources.yaml. Dense FLOP/s in the format that training chooses there; bytes, bytes/s.

    `link` joins the GPUs of a machine, `network` machines. Peaks, memory and NVLink: NVIDIA's data sheets (T4; L4, half
    of its figure with sparsity; A100 SXM4 of 40 GB), network: Google's list of the egress of machine types with GPUs;
    both from memory.
    """

    name: str
    peak: float
    format: str
    memory: float
    bandwidth: float
    link: float
    network: float


HARDWARE = {
    "t4": Hardware("T4", 65e12, "fp16", 16e9, 320e9, math.inf, 10e9 / 8),
    "l4": Hardware("L4", 121e12, "bf16", 24e9, 300e9, math.inf, 16e9 / 8),
    "a100": Hardware("A100", 312e12, "bf16", 40e9, 1555e9, math.inf, 24e9 / 8),
    "a100-x8": Hardware("8 x A100", 312e12, "bf16", 40e9, 1555e9, 300e9, 100e9 / 8),
}


@dataclass(frozen=True)
class Training:
    """One training of a plan: `examples` in batches of `batch`. An example is an image, or a context of tokens."""

    name: str
    work: Work
    examples: float
    batch: int
    noise: int = 0  # normals that an example is given

    @property
    def flop(self) -> float:
        return self.work.flop * self.examples


@dataclass(frozen=True)
class Step:
    """Seconds of a training step by what they go to."""

    compute: float
    launch: float
    update: float
    exchange: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.launch) + self.update + self.exchange

    @property
    def limit(self) -> str:
        """What most of the step goes to."""
        parts = {"compute": self.compute, "launches": self.launch, "weights": self.update, "network": self.exchange}
        return max(parts, key=lambda name: parts[name])


@cache
def machine(row: str) -> Machine:
    """A row of resources.yaml."""
    return load_machines()[row]


def step(training: Training, row: str, machines: int = 1) -> Step:
    """A step on all GPUs of `machines` machines of a row of resources.yaml.

    The batch is shared by all GPUs; what does not fit one's memory is held in parts, one after the other
    (`train.micro_batch`). Gradients travel in float32 by one ring all-reduce after the backward pass, through the
    slowest link: 2 (N - 1) / N x 4 bytes a parameter (core/processes/world.py).

    Raises:
        ValueError: there are more GPUs than examples in a batch, which training refuses.
    """
    hardware, work = HARDWARE[row], training.work
    gpus = machine(row).accelerator_count * machines
    if gpus > training.batch:
        raise ValueError(f"{training.name}: a batch of {training.batch} on {gpus} GPUs")
    share = math.ceil(training.batch / gpus)
    parts = math.ceil(share / fitting(training, row))
    return Step(
        compute=work.flop * share / (UTILISATION * hardware.peak),
        launch=work.operators * LAUNCH * parts,
        update=MOVED * work.parameters / hardware.bandwidth,
        exchange=exchange(training, row, machines),
    )


def exchange(training: Training, row: str, machines: int) -> float:
    """Seconds of a step in which GPUs wait for each other's gradients and answers."""
    hardware, inside = HARDWARE[row], machine(row).accelerator_count
    gpus = inside * machines
    if gpus == 1:
        return 0.0
    slowest = LINE * min(hardware.link if inside > 1 else math.inf, hardware.network if machines > 1 else math.inf)
    return 2 * (gpus - 1) / gpus * 4 * training.work.parameters / slowest + (1 + SMALL_EXCHANGES) * LATENCY


def fitting(training: Training, row: str) -> int:
    """Examples whose activations fit the memory of one GPU beside the state: the largest `train.micro_batch`."""
    room = HARDWARE[row].memory - RESERVED - training.work.state
    return int(room // training.work.activations)


def hours(training: Training, row: str, machines: int = 1) -> float:
    return training.examples / training.batch * step(training, row, machines).seconds / 3600


def dollars(training: Training, row: str, machines: int = 1) -> float:
    """USD on demand, the machines' start included."""
    price = machine(row).price()
    assert price is not None
    return machines * price * (hours(training, row, machines) + STARTUP_HOURS)
