"""A sample depends on its seed, place and label alone; in tiled batches to the last bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.config import validate
from core.errors import UserError
from core.images import pictures, sampling
from core.images.config import ImageModel, ImageSample
from core.images.denoising_path import DrawnImages
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

    def drawn(start: int, stop: int) -> DrawnImages:
        part = labels[start:stop]
        return sampling.draw(trained, settings, part, sigmas, SINGLE_PROCESS, first=start, tiled=True)

    whole = drawn(0, 9)
    for start, stop in ((0, 1), (0, 3), (4, 9), (7, 8)):
        assert np.array_equal(drawn(start, stop).images, whole.images[start:stop])
    assert whole.frames.shape[1] == 9  # the way from noise is of samples of several batches
    assert np.array_equal(whole.frames[-1], whole.images)


@pytest.mark.parametrize("sampler", ["dpmpp_sde", "heun"])
def test_redrawing_replaces_the_lowest_share_by_better_ones_and_leaves_the_rest(
    trained: TrainedModel, sampler: str
) -> None:
    section = {"count": 30, "steps": 6, "sampler": sampler, "guidance": 2.0, "guidance_high": 2.0, "batch_size": 4}

    def drawn(**more: float) -> DrawnImages:
        settings = validate(ImageSample, {**section, **more}, "sample")
        sigmas, labels = sampling.choose_sigmas(settings, trained.process), sampling.choose_labels(settings, trained)
        return sampling.draw(trained, settings, labels, sigmas, SINGLE_PROCESS)

    plain, watched, redrawn = drawn(), drawn(redraw=0.03), drawn(redraw=0.4)
    assert (plain.evidence, plain.redrawn, watched.redrawn, redrawn.redrawn) == (None, 0, 0, 12)
    assert np.array_equal(watched.images, plain.images)  # 0.03 of 30 is none
    assert watched.evidence is not None
    assert redrawn.evidence is not None
    better = redrawn.evidence > watched.evidence
    assert 0 < better.sum() <= 12
    assert set(np.flatnonzero(better)) <= set(np.argsort(watched.evidence)[:12])
    assert np.array_equal((redrawn.images != plain.images).any((1, 2)), better)
    assert np.array_equal(redrawn.evidence[~better], watched.evidence[~better])
    assert np.array_equal(redrawn.frames[-1], redrawn.images[:20])
    changed = (redrawn.frames != plain.frames).any((0, 2, 3))
    assert np.array_equal(changed, better[:20])


def test_samples_without_a_class_cannot_miss_it(trained: TrainedModel) -> None:
    settings = validate(ImageSample, {"count": 4, "steps": 2, "redraw": 0.5, "labels": [-1]}, "sample")
    labels, sigmas = sampling.choose_labels(settings, trained), sampling.choose_sigmas(settings, trained.process)
    with pytest.raises(UserError, match=r"sample\.redraw: no sample is of a class"):
        sampling.draw(trained, settings, labels, sigmas, SINGLE_PROCESS)


def test_a_model_without_classes_has_no_use_for_feedback(trained: TrainedModel) -> None:
    unconditional = replace(trained, config=trained.config.model_copy(update={"conditional": False}))
    settings = validate(ImageSample, {"count": 4, "steps": 2, "sampler": "ddpm", "feedback": 0.1}, "sample")
    labels, sigmas = sampling.choose_labels(settings, unconditional), sampling.choose_sigmas(settings, trained.process)
    with pytest.raises(UserError, match=r"sample\.feedback: the model knows no classes; set it to 0"):
        sampling.draw(unconditional, settings, labels, sigmas, SINGLE_PROCESS)


def test_evaluations_count_what_is_drawn_again_and_what_evidence_needs() -> None:
    plain = {"count": 10, "steps": 10}
    for settings, expected in [({}, 10), ({"redraw": 0.25}, 25), ({"redraw": 0.25, "guidance": 2.0}, 25)]:
        assert sampling.evaluations(validate(ImageSample, {**plain, **settings}, "sample")) == expected


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (10, 1, 10), (12, 2, 6), (15, 2, 8)])
def test_the_grid_of_one_class_has_no_more_cells_than_it_must(count: int, rows: int, columns: int) -> None:
    images, labels = np.zeros((count, 8, 8), np.uint8), np.full(count, 7)
    assert pictures.grid_by_class(images, labels).shape == (rows * 9 + 1, columns * 9 + 1)
