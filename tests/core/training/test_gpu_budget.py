"""What a GPU is asked for a step, on one that computes nothing (tests/fakes/cuda): no tensor left on the host, no wait
between two rows of the log, and no more kernels than there are."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.fakes.cuda.device import ROOT, unusable

KERNELS = {  # a step of training, or of drawing as a whole; about 5 % above what was counted
    "train images": 497,
    "train images, fp16": 505,
    "train images, epsilon": 511,
    "train text, autoregressive": 446,
    "train text, diffusion": 1113,
    "train text, masked": 451,
    "train text, original": 450,
}
DRAWN = (
    "draw images", "draw images, heun", "draw images, feedback",
    "draw text, diffusion", "draw text, autoregressive", "draw text, masked",
)  # fmt: skip

if (reason := unusable()) is not None:
    pytest.skip(reason, allow_module_level=True)


@pytest.fixture(scope="module")
def counts() -> dict[str, Any]:
    """In a process of its own: its driver must be there before torch."""
    done = subprocess.run([sys.executable, "-m", "tests.fakes.cuda.counts"], cwd=ROOT, capture_output=True, text=True,
                          timeout=900, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_no_tensor_is_left_on_the_host(counts: dict[str, Any]) -> None:
    assert {name: one["error"] for name, one in counts.items() if "error" in one} == {}


def test_no_step_of_training_waits_for_the_gpu(counts: dict[str, Any]) -> None:
    assert {name: counts[name]["waits"] for name in KERNELS if counts[name]["waits"]} == {}


def test_a_step_of_training_starts_no_more_kernels_than_it_did(counts: dict[str, Any]) -> None:
    assert {name: counts[name]["kernels"] for name in KERNELS if counts[name]["kernels"] > KERNELS[name]} == {}


def test_drawing_waits_for_nothing_but_its_results(counts: dict[str, Any]) -> None:
    waits = {
        name: [place for place in counts[name]["waits"] if not place.startswith("copy to the host")] for name in DRAWN
    }
    assert {name: places for name, places in waits.items() if places} == {}
    assert sum(counts["draw text, autoregressive"]["waits"].values()) == 0


def test_an_image_costs_no_more_kernels_than_it_did(counts: dict[str, Any]) -> None:
    drawn = counts["draw images"]
    assert drawn["kernels"] <= 265 * drawn["evaluations"]


def test_a_recorded_batch_of_images_is_one_launch_and_its_inputs(counts: dict[str, Any]) -> None:
    later = counts["draw images, another batch"]
    assert later["kernels"] <= 3  # inputs, the path, and a copy of what it came to
    assert later["recording"] == []
    assert [place.partition(":")[0] for place in later["waits"]] == ["copy to the host"]


def test_a_recorded_token_is_one_launch_and_its_inputs(counts: dict[str, Any]) -> None:
    later = counts["draw text, autoregressive, a token more"]
    assert later["kernels"] <= 3
    assert later["waits"] == {}


def test_a_recorded_block_is_six_launches_a_step_and_its_beginning(counts: dict[str, Any]) -> None:
    later = counts["draw text, diffusion, a block more"]
    assert later["kernels"] <= 6 * later["evaluations"] + 57  # noise levels, and that it is read
    assert later["waits"] == {}
