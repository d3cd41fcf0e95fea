"""Tiny models as sources of exports: images with a guide, text by the mixture and by the mean; each traced once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.config import validate
from core.images import model as images
from core.images.config import ImageModel
from factory.finding import FoundModel
from serving.export import source as sources
from serving.export.source import ImageSource, TextSource
from tests.serving.conftest import CLASSES, UNET, save_text, shaken

MANNER = {
    "steps": 4, "sampler": "dpmpp_sde", "sigma_max": 20.0, "start": "estimate", "guidance": 1.5, "guidance_low": 0.2,
    "guidance_high": 5.0, "autoguidance": 1.25,
}  # fmt: skip


def save_guided(folder: Path, network: dict[str, Any] = UNET) -> None:
    """A model of images with a guide."""
    config = validate(ImageModel, network, "model")
    shape = images.ImageShape(channels=1, height=8, width=8, class_names=CLASSES)
    early = shaken(images.build_network(config, shape), 2).state_dict()
    images.save_model(folder, shaken(images.build_network(config, shape), 1), config, shape, {}, early)


def guided_source(folder: Path, network: dict[str, Any] = UNET) -> ImageSource:
    """The same as a source of exports."""
    save_guided(folder, network)
    source = sources.load(FoundModel({"model": folder}, MANNER), {})
    assert isinstance(source, ImageSource)
    return source


@pytest.fixture(scope="session")
def image_source(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    return guided_source(tmp_path_factory.mktemp("exported") / "images")


@pytest.fixture(scope="session")
def text_source(tmp_path_factory: pytest.TempPathFactory) -> TextSource:
    return _written(tmp_path_factory.mktemp("exported") / "text", "mixture")


@pytest.fixture(scope="session")
def guessing_source(tmp_path_factory: pytest.TempPathFactory) -> TextSource:
    """Text whose steps go to the mean and hand a guess on."""
    return _written(tmp_path_factory.mktemp("exported") / "text", "ddpm")


def _written(folder: Path, sampler: str) -> TextSource:
    save_text(folder)
    found = sources.load(FoundModel({"model": folder}, {"steps": 4, "temperature": 0.9, "sampler": sampler}), {})
    assert isinstance(found, TextSource)
    return found
