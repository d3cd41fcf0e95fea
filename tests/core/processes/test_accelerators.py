"""Asked for a GPU and none there: one line, before any work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.errors import UserError
from core.processes.accelerators import driver, expected, require_gpus, supported

ROOT = Path(__file__).parents[3]
BUILT = ["sm_75", "sm_80", "sm_86", "sm_90"]


@pytest.mark.parametrize(
    ("capability", "runs"),
    [((7, 5), True), ((8, 9), True), ((9, 0), True), ((6, 0), False), ((7, 0), False), ((12, 0), False)],
    ids=["T4", "L4", "H100", "P100", "V100", "newer than the build"],
)
def test_a_gpu_is_usable_if_torch_was_built_for_it(capability: tuple[int, int], runs: bool) -> None:
    assert supported(capability, BUILT) is runs
    assert supported((12, 0), [*BUILT, "compute_90"])


def test_who_did_not_ask_for_a_gpu_needs_none_and_a_laptop_is_no_pod() -> None:
    assert expected({}) == expected({"TEXTDIFFUSION_POD_GPUS": "2"}) == 0
    assert expected({"TEXTDIFFUSION_POD_GPUS": "2", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == 2
    assert expected({"TEXTDIFFUSION_GPUS": "1"}) == 1
    with pytest.raises(UserError, match="TEXTDIFFUSION_GPUS: found 'many'"):
        expected({"TEXTDIFFUSION_GPUS": "many"})


def test_fewer_gpus_than_asked_for_is_one_line_with_driver_cuda_and_architectures() -> None:
    with pytest.raises(UserError) as error:
        require_gpus({"TEXTDIFFUSION_GPUS": str(torch.cuda.device_count() + 1)})
    said = str(error.value)
    assert f"driver {driver()}" in said
    assert f"torch {torch.__version__} with CUDA {torch.version.cuda or 'none'} for" in said


def test_a_step_without_its_gpu_stops_before_it_works(tmp_path: Path) -> None:
    wanted = str(torch.cuda.device_count() + 1)
    body = "from components.step import step\nwith step():\n    print('worked')\n"
    done = subprocess.run(
        [sys.executable, "-c", body],
        env={**os.environ, "TEXTDIFFUSION_GPUS": wanted}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith(f"error: {wanted} GPU")


def test_the_driver_is_read_from_where_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12\n")
    assert driver(tmp_path / "version") == "535.183.01"
    assert driver(tmp_path / "absent") == "none"
