"""Networks that are prepared for a draw give the same images, however often an evaluation is repeated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.images import prepared, sampling
from core.images.config import ImageSample
from core.images.evidence import Evidence
from core.images.model import NoiseProcess, TrainedModel
from core.images.objective import ImageObjective
from core.images.prepared import Prepared
from core.processes.world import SINGLE_PROCESS
from tests.core.training.recorded import Recordings
from tests.core.training.small import images

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    made = images()
    assert isinstance(made, ImageObjective)
    for parameter in made.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    network = made.model.eval().requires_grad_(False)
    return TrainedModel(network, NoiseProcess(made.config.process), made.shape, made.config, {}, network)


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> Recordings:
    return Recordings(monkeypatch)


class Recorded(Prepared):
    """As on a GPU."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.record()


def drawn(
    model: TrainedModel | Prepared, settings: ImageSample, trained: TrainedModel, first: int, labels: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Images from noise of three numbers from `first` on, and the evidence of each."""
    sigmas, seeds = sampling.choose_sigmas(settings, trained.process), range(first, first + len(labels))
    evidence = Evidence(sigmas)
    x = sampling.denoise_batch(model, settings, seeds, labels, sigmas, CPU, evidence=evidence)
    return x, evidence.of(x)


@pytest.mark.parametrize(
    ("sampler", "number_format", "feedback"),
    [("dpmpp_sde", "bf16", 0.0), ("dpmpp_sde", "fp32", 0.1), ("heun", "fp32", 0.0)],
)
def test_a_repeated_path_is_that_of_the_sampler(
    trained: TrainedModel, sampler: str, number_format: str, feedback: float, recordings: Recordings
) -> None:
    settings = ImageSample.model_validate(
        {"count": 3, "sampler": sampler, "steps": 3, "precision": number_format, "start": "estimate", "guidance": 1.5,
         "guidance_low": 0.1, "guidance_high": 5.0, "autoguidance": 1.2, "feedback": feedback}
    )  # fmt: skip
    model = Recorded(trained, settings, CPU)
    classes = [np.array([0, 1, 2]), np.array([3, 10, 4]), np.array([9, 9, 0]), np.array([10, 10, 10])]
    for index, labels in enumerate(classes):
        mine, theirs = (drawn(one, settings, trained, 3 * index, labels) for one in (model, trained))
        assert torch.equal(mine[0], theirs[0])
        assert torch.equal(mine[1], theirs[1])
    assert (recordings.made, recordings.replayed) == (1, 2)  # the first was not repeated, nor that of no class at all


def test_a_path_that_is_watched_is_not_repeated(
    trained: TrainedModel, recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ImageSample(count=50, steps=3, batch_size=10, precision="fp32")
    labels, sigmas = sampling.choose_labels(settings, trained), sampling.choose_sigmas(settings, trained.process)
    theirs = sampling.draw(trained, settings, labels, sigmas, SINGLE_PROCESS)
    monkeypatch.setattr(sampling, "Prepared", Recorded)
    mine = sampling.draw(trained, settings, labels, sigmas, SINGLE_PROCESS)
    assert np.array_equal(mine.images, theirs.images)
    assert np.array_equal(mine.frames, theirs.frames)
    assert (recordings.made, recordings.replayed) == (1, 3)  # the first two are shown


def test_of_a_long_path_each_evaluation_is_repeated(
    trained: TrainedModel, recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "LONGEST", 5)
    settings = ImageSample(count=3, steps=6, guidance=1.5, autoguidance=1.2, precision="bf16")
    model = Recorded(trained, settings, CPU)
    for index in range(2):
        mine, theirs = (drawn(one, settings, trained, 3 * index, np.arange(3)) for one in (model, trained))
        assert torch.equal(mine[0], theirs[0])
    assert recordings.made == 2  # of the network, for labels and none at once, and of the guide
    assert recordings.replayed == 2 * (2 * 6 - 3)


def test_the_weights_are_the_models_own_afterwards(trained: TrainedModel) -> None:
    settings = ImageSample(count=2, steps=2, precision="bf16")
    labels, sigmas = sampling.choose_labels(settings, trained), sampling.choose_sigmas(settings, trained.process)
    before = [id(parameter) for parameter in trained.network.parameters()]
    assert np.isfinite(sampling.draw_batch(trained, settings, [0, 1], labels, sigmas, CPU)).all()
    assert [id(parameter) for parameter in trained.network.parameters()] == before
