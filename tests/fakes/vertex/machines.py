"""Which accelerators the service attaches to which machines, written down apart from the project's own table.

Source: the machine and GPU tables of Vertex AI's "Configure compute resources for custom training".
"""

from __future__ import annotations

from google.cloud import aiplatform_v1

from tests.fakes.vertex.errors import invalid

_N1_SIZES = [f"n1-{kind}-{size}" for kind in ("standard", "highmem", "highcpu") for size in (4, 8, 16, 32, 64, 96)]
_PLAIN = [
    f"{family}-{kind}-{size}"
    for family in ("e2", "n2", "n2d")
    for kind in ("standard", "highmem", "highcpu")
    for size in (2, 4, 8, 16, 32, 48, 64)
] + [f"c2-standard-{size}" for size in (4, 8, 16, 30, 60)]

ATTACHED: dict[str, dict[str, tuple[int, ...]]] = {
    **{name: {} for name in _PLAIN},
    **{
        name: {
            "NVIDIA_TESLA_T4": (1, 2, 4),
            "NVIDIA_TESLA_P4": (1, 2, 4),
            "NVIDIA_TESLA_P100": (1, 2, 4),
            "NVIDIA_TESLA_V100": (1, 2, 4, 8),
        }
        for name in _N1_SIZES
    },
    **{f"g2-standard-{size}": {"NVIDIA_L4": (1,)} for size in (4, 8, 12, 16, 32)},
    "g2-standard-24": {"NVIDIA_L4": (2,)},
    "g2-standard-48": {"NVIDIA_L4": (4,)},
    "g2-standard-96": {"NVIDIA_L4": (8,)},
    **{f"a2-highgpu-{n}g": {"NVIDIA_TESLA_A100": (n,)} for n in (1, 2, 4, 8)},
    **{f"a2-ultragpu-{n}g": {"NVIDIA_A100_80GB": (n,)} for n in (1, 2, 4, 8)},
    **{f"a3-highgpu-{n}g": {"NVIDIA_H100_80GB": (n,)} for n in (1, 2, 4, 8)},
}
_BUILT_IN = ("g2-", "a2-", "a3-")


def check_machine(machine_type: str, accelerator_type: str, count: int) -> None:
    """Refuses what the service refuses.

    Raises:
        ServiceError: INVALID_ARGUMENT for an unknown machine, an unknown accelerator or a pair that does not exist.
    """
    known = aiplatform_v1.AcceleratorType.__members__
    if accelerator_type and accelerator_type not in known:
        raise invalid(f'Invalid value at "accelerator_type" ({accelerator_type!r})')
    if machine_type not in ATTACHED:
        raise invalid(f'Machine type "{machine_type}" is not supported.')
    allowed = ATTACHED[machine_type]
    if not accelerator_type or accelerator_type == "ACCELERATOR_TYPE_UNSPECIFIED":
        if machine_type.startswith(_BUILT_IN):
            raise invalid(f"Machine type {machine_type} requires an accelerator: {', '.join(allowed)}.")
        return
    if count not in allowed.get(accelerator_type, ()):
        raise invalid(
            f'Accelerator "{accelerator_type}" with count {count} is not compatible with machine type "{machine_type}".'
        )
