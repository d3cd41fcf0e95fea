"""Networks that are prepared for a draw give the same images, however often an evaluation is repeated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from core.images import sampling
from core.images.config import ImageSample
from core.images.model import NoiseProcess, TrainedModel
from core.images.objective import ImageObjective
from core.images.prepared import Prepared
from core.training import graphs
from core.training.objective import Batch
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


@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
def test_repeated_evaluations_are_those_of_the_network(
    trained: TrainedModel, number_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeated: list[torch.Size] = []

    def record(function: Callable[[Batch], Tensor], batch: Batch) -> object:
        """As a graph does it: from inputs of its own into a result of its own."""
        inputs = tuple(tensor.clone() for tensor in batch.tensors)
        result = function(Batch(inputs))

        class Graph:
            def replay(self) -> None:
                repeated.append(inputs[0].shape)
                result.copy_(function(Batch(inputs)))

        return Graph(), inputs, result

    monkeypatch.setattr(graphs, "_recorded", record)
    settings = ImageSample(count=3, steps=6, guidance=1.5, autoguidance=1.2, precision=number_format)
    labels, sigmas = sampling.choose_labels(settings, trained), sampling.choose_sigmas(settings, trained.process)
    model = Prepared(trained, settings, CPU)
    model._recorded = True
    for seed in range(3):
        seeds = [3 * seed + i for i in range(3)]
        theirs = sampling.denoise_batch(trained, settings, seeds, labels, sigmas, CPU)
        mine = sampling.denoise_batch(model, settings, seeds, labels, sigmas, CPU)
        assert torch.equal(mine, theirs)
    assert {shape[0] for shape in repeated} == {3, 6}  # with guidance of no class both at once
    assert len(repeated) > 12


def test_the_weights_are_the_models_own_afterwards(trained: TrainedModel) -> None:
    settings = ImageSample(count=2, steps=2, precision="bf16")
    labels, sigmas = sampling.choose_labels(settings, trained), sampling.choose_sigmas(settings, trained.process)
    before = [id(parameter) for parameter in trained.network.parameters()]
    assert np.isfinite(sampling.draw_batch(trained, settings, [0, 1], labels, sigmas, CPU)).all()
    assert [id(parameter) for parameter in trained.network.parameters()] == before
