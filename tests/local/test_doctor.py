"""What doctor says of a card, in the words of nvidia-smi and of torch."""

from __future__ import annotations

import shutil

import pytest

from local import doctor

CARD = "Tesla T4, 15360 MiB, 550.54"


@pytest.mark.parametrize(
    ("card", "torch_says", "state", "found"),
    [
        (CARD, "13.0 True", "ok", CARD),
        (CARD, "13.0 False", "optional", f"{CARD}: torch, built for CUDA 13.0, cannot use it"),
        ("", "", "optional", "nvidia-smi finds none: training runs on the CPU"),
    ],
)
def test_a_card_counts_only_if_torch_can_use_it(
    card: str, torch_says: str, state: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor, "_says", lambda command: card if command[0] == "nvidia-smi" else torch_says)
    row = doctor._accelerator()
    assert (row["state"], row["found"]) == (state, found)


def test_torch_is_asked_in_a_process_of_its_own() -> None:
    assert doctor._says(["sh", "-c", "echo card; exit 3"]) == "card"
    assert doctor._says(["no-such-program"]) == ""
