"""Machines: the rows of resources.yaml, and which accelerators each machine type takes."""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from core.architectures import LOCKED, runs_on
from core.config import Frozen, read_written, validate
from core.errors import UserError
from core.similar import did_you_mean

RESOURCES = Path(__file__).parent / "configs" / "resources.yaml"

# Machine type -> accelerator -> counts. https://cloud.google.com/vertex-ai/docs/training/configure-compute
_N1 = {"NVIDIA_TESLA_T4": (1, 2, 4)}
_G2 = {4: 1, 8: 1, 12: 1, 16: 1, 32: 1, 24: 2, 48: 4, 96: 8}
# Accelerator -> compute capability. https://developer.nvidia.com/cuda-gpus
_CAPABILITY = {
    "NVIDIA_TESLA_P4": (6, 1),
    "NVIDIA_TESLA_P100": (6, 0),
    "NVIDIA_TESLA_V100": (7, 0),
    "NVIDIA_TESLA_T4": (7, 5),
    "NVIDIA_L4": (8, 9),
    "NVIDIA_TESLA_A100": (8, 0),
    "NVIDIA_A100_80GB": (8, 0),
    "NVIDIA_H100_80GB": (9, 0),
    "NVIDIA_H100_MEGA_80GB": (9, 0),
}
IN_CLUSTER = "nvidia.com/gpu"
"""What a GPU is called on Kubernetes, whichever it is."""
ACCELERATORS = tuple(name for name, capability in _CAPABILITY.items() if runs_on(capability))
"""Those that the torch of the image runs on."""
SPOT_ONLY = re.compile(r"a3-highgpu-[124]g")
"""Machine types that Compute Engine gives only as spot or flex-start; of Vertex AI it is not known."""


_FOR_PODS = 0.8  # of a node's memory: GKE keeps 17 % of 15 GiB, and its own pods half a GiB


class Price(Frozen):
    """USD per hour, with the day and the place it was read."""

    machine: float = Field(ge=0)
    accelerator: float = Field(0, ge=0, description="of one accelerator")
    verified: bool
    date: datetime.date
    source: str


class Toleration(Frozen):
    """A taint of nodes that pods are let onto, as Kubernetes has it."""

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    @model_validator(mode="after")
    def _means_something(self) -> Toleration:
        if not self.key and self.operator != "Exists":
            raise ValueError("without a key the operator is Exists")
        if self.value and self.operator == "Exists":
            raise ValueError("the operator Exists takes no value")
        return self


class Pod(Frozen):
    """What a step's pod is on Kubernetes, beside its size and node."""

    cpu: float | None = Field(None, gt=0, le=416, description="requested; left out: a little less than the machine's")
    memory_gb: float | None = Field(None, gt=0, le=12_000, description="likewise; the limit too")
    tolerations: tuple[Toleration, ...] = ()
    pull_secrets: tuple[str, ...] = Field((), description="for the image's registry")
    shared_memory: str | None = Field(
        None, pattern=r"^[1-9][0-9]{0,5}(Mi|Gi)$", description="of /dev/shm; left out: no limit with several GPUs"
    )
    claims: dict[str, str] = Field(default_factory=dict, description="path in the pod by name of a volume claim")
    labels: dict[str, str] = Field(default_factory=dict, description="of the pod, by which admission webhooks know it")
    retries: int = Field(0, ge=0, le=10, description="of a step whose pod failed or was taken away")
    backoff_seconds: int = Field(60, ge=1, le=3600, description="before the first retry; then twice as long each time")


class Machine(Frozen):
    """One row of resources.yaml."""

    machine_type: str
    cpu: int = Field(ge=1, le=416)
    memory_gb: int = Field(ge=1, le=12_000)
    accelerator_type: str | None = None
    accelerator_count: int = Field(0, ge=0, le=16)
    node_selector: dict[str, str] = Field(default_factory=dict, description="label of the nodes on Kubernetes")
    kubernetes: Pod = Field(default_factory=Pod)
    usd_per_hour: Price | None = None

    def requested(self) -> tuple[float, int]:
        """CPUs and megabytes (10^6 bytes) that a pod may ask for: a node of the machine's size keeps some of both for
        itself, so a pod that asked for all of it would wait for ever."""
        cpu = self.kubernetes.cpu or (self.cpu - 1 if self.cpu > 1 else 0.5)
        return cpu, round(1000 * (self.kubernetes.memory_gb or _FOR_PODS * self.memory_gb))

    def waiting(self) -> Machine:
        """The same for a pod that waits for others and hands files on."""
        own = self.kubernetes.model_copy(update={"cpu": 0.5, "memory_gb": min(4.0, 0.8 * self.memory_gb)})
        return self.model_copy(update={"kubernetes": own})

    def spec(self) -> dict[str, Any]:
        """`MachineSpec` of a worker pool."""
        if not self.accelerator_type:
            return {"machine_type": self.machine_type}
        accelerators = {"accelerator_type": self.accelerator_type, "accelerator_count": self.accelerator_count}
        return {"machine_type": self.machine_type, **accelerators}

    def price(self) -> float | None:
        """USD per hour with all accelerators; None if the row states no price."""
        if self.usd_per_hour is None:
            return None
        return self.usd_per_hour.machine + self.accelerator_count * self.usd_per_hour.accelerator


def allowed_accelerators(machine_type: str) -> dict[str, tuple[int, ...]]:
    """Accelerators that a machine type takes, and in which counts; empty if it takes none."""
    if re.fullmatch(r"n1-(standard|highmem|highcpu)-\d+", machine_type):
        return dict(_N1)
    if (match := re.fullmatch(r"g2-standard-(\d+)", machine_type)) and int(match[1]) in _G2:
        return {"NVIDIA_L4": (_G2[int(match[1])],)}
    if match := re.fullmatch(r"(a2-highgpu|a2-ultragpu|a3-highgpu)-([1248])g", machine_type):
        kind = {
            "a2-highgpu": "NVIDIA_TESLA_A100",
            "a2-ultragpu": "NVIDIA_A100_80GB",
            "a3-highgpu": "NVIDIA_H100_80GB",
        }
        return {kind[match[1]]: (int(match[2]),)}
    if machine_type == "a2-megagpu-16g":
        return {"NVIDIA_TESLA_A100": (16,)}
    if machine_type == "a3-megagpu-8g":
        return {"NVIDIA_H100_MEGA_80GB": (8,)}
    return {}


def check_pair(machine_type: str, accelerator_type: str | None, count: int, where: str) -> None:
    """Raises UserError if Vertex has no such machine with such accelerators."""
    allowed = allowed_accelerators(machine_type)
    if not accelerator_type:
        if count:
            raise UserError(f"{where}: accelerator_count {count} without accelerator_type")
        if allowed and not machine_type.startswith("n1-"):
            only = ", ".join(f"{name} x {counts[0]}" for name, counts in allowed.items())
            raise UserError(f"{where}: {machine_type} comes only with its accelerators; allowed: {only}")
        return
    if accelerator_type in _CAPABILITY and accelerator_type not in ACCELERATORS:
        capability = "".join(map(str, _CAPABILITY[accelerator_type]))
        raise UserError(
            f"{where}: {accelerator_type} is sm_{capability}, and the locked torch has kernels for {', '.join(LOCKED)};"
            f" allowed: {', '.join(ACCELERATORS)}"
        )
    if accelerator_type not in ACCELERATORS:
        near = difflib.get_close_matches(accelerator_type.replace("TESLA_", ""), ACCELERATORS, n=1, cutoff=0.7)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"{where}: no accelerator is called {accelerator_type}{hint} allowed: {', '.join(ACCELERATORS)}"
        )
    if accelerator_type not in allowed:
        takes = ", ".join(allowed) or "none"
        raise UserError(f"{where}: {machine_type} does not take {accelerator_type}; accelerators it takes: {takes}")
    if count not in allowed[accelerator_type]:
        counts = ", ".join(str(number) for number in allowed[accelerator_type])
        raise UserError(f"{where}: {machine_type} with {count} x {accelerator_type}; allowed counts: {counts}")


def load_machines(own: Mapping[str, Any] | None = None) -> dict[str, Machine]:
    """Rows of resources.yaml by name, with the user's `own` rows laid over them.

    Raises:
        UserError: a row is not valid, or its machine does not take its accelerator.
    """
    rows = {name: (row, f"{RESOURCES.name}: {name}") for name, row in read_written(RESOURCES).items()}
    rows |= {name: (row, f"machines: {name}") for name, row in (own or {}).items()}
    machines = {}
    for name, (row, where) in rows.items():
        machine = validate(Machine, row, where)
        check_pair(machine.machine_type, machine.accelerator_type, machine.accelerator_count, where)
        machines[name] = machine
    return machines


def choose(machines: Mapping[str, Machine], name: str, where: str) -> Machine:
    """The row called `name`; a UserError that lists the rows if there is none."""
    if name not in machines:
        raise UserError(f"{where}: found {name!r}; {did_you_mean(name, machines)}allowed: {', '.join(machines)}")
    return machines[name]
