"""GPUs that the locked torch has no kernels for are known before one is paid for."""

from __future__ import annotations

import pytest

from core.architectures import LOCKED, runs_on


def test_the_table_is_that_of_the_locked_wheel() -> None:
    import torch

    built = torch.cuda.get_arch_list()
    if not built:
        pytest.skip(f"torch {torch.__version__} is built without CUDA")
    assert tuple(name for name in built if name.startswith("sm_")) == LOCKED


@pytest.mark.parametrize(
    ("gpu", "capability", "runs"),
    [
        ("P100", (6, 0), False),
        ("P4", (6, 1), False),
        ("V100", (7, 0), False),
        ("T4", (7, 5), True),
        ("A100", (8, 0), True),
        ("L4", (8, 9), True),  # by the kernels for sm_86
        ("H100", (9, 0), True),
    ],
)
def test_kernels_run_on_their_own_and_on_later_minor_architectures(
    gpu: str, capability: tuple[int, int], runs: bool
) -> None:
    assert runs_on(capability) is runs, gpu


def test_code_for_the_driver_to_compile_runs_on_everything_newer() -> None:
    assert runs_on((11, 0), ("sm_75", "compute_90"))
    assert not runs_on((11, 0), ("sm_75", "sm_90a"))
