"""Which GPUs the kernels of a torch wheel run on.

`torch.cuda.get_arch_list()` names what a wheel was built for. Kernels for sm_XY run on GPUs of the same major number X
and a minor number of at least Y; compute_XY is code that the driver compiles for anything as new or newer.
"""

from __future__ import annotations

from collections.abc import Sequence

LOCKED = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
"""What the torch of requirements.lock is built for on Linux and amd64, with CUDA 13 (needs driver 580 or later)."""


def runs_on(capability: tuple[int, int], built: Sequence[str] = LOCKED) -> bool:
    """Whether a GPU of this compute capability, such as (7, 5), runs kernels built for the architectures `built`."""
    for name in built:
        kind, _, number = name.partition("_")
        digits = number.rstrip("af")  # sm_90a: with what only this architecture has
        major, minor = int(digits[:-1]), int(digits[-1])
        if kind == "compute" and capability >= (major, minor):
            return True
        if kind == "sm" and major == capability[0] and minor <= capability[1]:
            return True
    return False
