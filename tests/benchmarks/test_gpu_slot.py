"""The slot's script runs to its end without a GPU, and an item that fails costs no other."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_items, gpu_slot
from benchmarks.slot import Slot


@pytest.mark.slow
def test_every_item_runs_in_the_dry_run(tmp_path: Path) -> None:
    found = gpu_slot.measure(
        Slot(torch.device("cpu"), tmp_path, tiny=True), list(gpu_slot.ITEMS), tmp_path / "out.json"
    )
    assert {name: item["error"] for name, item in found["items"].items() if "error" in item} == {}
    assert json.loads((tmp_path / "out.json").read_text()) == found
    assert found["items"]["resume"]["images, deterministic=True, resumed"]


def test_an_item_that_fails_or_hangs_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(slot: Slot) -> dict[str, object]:
        slot.results["before"] = 1
        raise RuntimeError("no kernel image")

    def hangs(slot: Slot) -> dict[str, object]:
        time.sleep(60)
        return {}

    items = {"fails": (9.0, fails), "hangs": (0.2, hangs), "works": (9.0, lambda slot: {"rate": 3})}
    monkeypatch.setattr(gpu_slot, "ITEMS", items)
    slot = Slot(torch.device("cpu"), tmp_path, tiny=False)
    found = gpu_slot.measure(slot, list(items), tmp_path / "out.json")["items"]
    assert found["fails"]["before"] == 1
    assert "no kernel image" in found["fails"]["error"]
    assert "stopped after" in found["hangs"]["error"]
    assert found["works"]["rate"] == 3


def test_a_gpu_that_is_lost_costs_no_item_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(slot: Slot) -> dict[str, object]:
        raise torch.AcceleratorError("device-side assert triggered")

    monkeypatch.setitem(gpu_slot.ITEMS, "formats", (9.0, lost))
    slot = Slot(torch.device("cpu"), tmp_path, tiny=True)
    found = gpu_slot.measure(slot, ["formats", "machine"], tmp_path / "out.json")
    assert "device-side assert" in found["items"]["formats"]["error"]
    assert "error" not in found["items"]["machine"]  # by a process of its own, whose items are as they were
    assert json.loads((tmp_path / "out.json").read_text()) == found


def test_the_items_fit_the_slot_one_after_the_other() -> None:
    assert gpu_slot.SECONDS <= 560
    seconds = {name: most for name, (most, _) in gpu_slot.ITEMS.items()}
    new = list(seconds)[: list(seconds).index("rates")]  # what no card has measured, and the machine
    assert {"quality", "draw", "write", "peers", "nccl", "text", "deterministic"} < set(new)
    assert sum(seconds[name] for name in new) + seconds["rates"] < gpu_slot.SECONDS


def test_text_is_measured_beside_nano_gpt_and_determinism_against_none(tmp_path: Path) -> None:
    slot = Slot(torch.device("cpu"), tmp_path, tiny=True)
    gpu_items.text(slot)
    gpu_items.deterministic(slot)
    assert set(slot.results) == {
        "autoregressive",
        "diffusion",
        "nanoGPT",
        *(f"{name}, deterministic={on}" for name in ("images", "autoregressive", "diffusion") for on in (False, True)),
    }
    assert min(slot.results.values()) > 0


def test_a_peer_that_is_not_installed_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.setitem(sys.modules, "denoising_diffusion_pytorch", None)
    slot = Slot(torch.device("cpu"), tmp_path, tiny=True)
    gpu_items.peers(slot)
    assert {name: said.split(":")[0] for name, said in slot.results.items()} == {
        "diffusers": "left out",
        "denoising-diffusion-pytorch": "left out",
    }
