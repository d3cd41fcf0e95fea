"""A sample depends on its seed, place and label alone; in tiled batches to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.config import validate
from core.images import sampling
from core.images.config import ImageModel, ImageSample
from core.images.model import ImageShape, NoiseProcess, TrainedModel, build_network
from core.processes.world import SINGLE_PROCESS


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    """A UNet with noise in all weights, zeros too."""
    network = {"name": "unet", "channels": [16, 32], "blocks": [1, 1], "embedding": 32}
    config = validate(ImageModel, {"network": network}, "model")
    shape = ImageShape(channels=1, height=8, width=8, class_names=("a", "b", "c"))
    built = build_network(config, shape)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draws))
    return TrainedModel(built.eval(), NoiseProcess(config.process), shape, config, {})


@pytest.mark.parametrize("sampler", ["dpmpp", "dpmpp_sde"])
def test_tiled_batches_give_the_same_bits_for_any_count(trained: TrainedModel, sampler: str) -> None:
    settings = validate(ImageSample, {"count": 9, "steps": 6, "sampler": sampler, "guidance": 2.0, "seed": 5}, "sample")
    sigmas = sampling.choose_sigmas(settings, trained.process)
    labels = sampling.choose_labels(settings, trained)

    def drawn(start: int, stop: int) -> sampling.DrawnImages:
        part = labels[start:stop]
        return sampling.draw(trained, settings, part, sigmas, SINGLE_PROCESS, first=start, tiled=True)

    whole = drawn(0, 9)
    for start, stop in ((0, 1), (0, 3), (4, 9), (7, 8)):
        assert np.array_equal(drawn(start, stop).images, whole.images[start:stop])
    assert whole.frames.shape[1] == 9  # the way from noise is of samples of several batches
    assert np.array_equal(whole.frames[-1], whole.images)


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (10, 1, 10), (12, 2, 6), (15, 2, 8)])
def test_the_grid_of_one_class_has_no_more_cells_than_it_must(count: int, rows: int, columns: int) -> None:
    images, labels = np.zeros((count, 8, 8), np.uint8), np.full(count, 7)
    assert sampling.grid_by_class(images, labels).shape == (rows * 9 + 1, columns * 9 + 1)
