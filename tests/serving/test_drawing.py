"""A worker keeps what it prepared for the wishes that come again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.images.config import ImageSample
from serving import drawing


def drawer(monkeypatch: pytest.MonkeyPatch, device: str) -> Any:
    monkeypatch.setattr(drawing, "load_model", lambda *_: SimpleNamespace(shape=None, description={}))
    monkeypatch.setattr(drawing, "own_device", lambda: torch.device(device))
    return drawing.load("images", {"model": str(Path())}, 4)


def test_networks_are_prepared_once_for_each_of_the_last_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    images = drawer(monkeypatch, "cpu")
    wishes = [ImageSample(guidance=1 + weight) for weight in range(drawing.KEPT + 1)]
    first = [images._ready(wish) for wish in wishes[:-1]]
    assert images._ready(wishes[0]) is first[0]  # now the last that was asked for
    images._ready(wishes[-1])
    assert images._ready(wishes[0]) is first[0]
    assert images._ready(wishes[1]) is not first[1]
    assert images._ready.cache_info().currsize == drawing.KEPT


@pytest.mark.parametrize(("device", "recorded"), [("cpu", False), ("cuda", True)])
def test_only_a_gpu_records_what_is_asked_for_again(
    device: str, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drawer(monkeypatch, device)._ready(ImageSample())._paths.on is recorded
