"""A model that jumps: its loss is least for the ends of paths, DDPM draws from it, and its training can be killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.errors import UserError
from core.images.config import ImageModel
from core.images.few_steps import FewStepsObjective
from core.images.model import ImageShape, NoiseProcess, TrainedModel, build_network
from core.noise import karras_sigmas
from core.randomness import Draws
from core.samplers import sample_ddpm
from core.storage.model_folder import read_description, read_weights
from tests.core.asked import Steps
from tests.core.images.test_steps import shapes

CPU, DEVIATION = torch.device("cpu"), 0.5
NETWORK = {"name": "unet", "channels": [8, 16], "blocks": [1, 1], "embedding": 16, "head_channels": 8}
FEW = {"paths": 20, "share": 0.5, "steps": 4}
steps = Steps("images")


def objective(few: dict[str, object], network: Callable[[NoiseProcess], nn.Module] | None = None) -> FewStepsObjective:
    config = ImageModel.model_validate({"network": NETWORK, "few_steps": {**FEW, **few}}).with_deviation(DEVIATION)
    shape = ImageShape(channels=1, height=8, width=8, class_names=("a", "b"))
    process = NoiseProcess(config.process)
    torch.manual_seed(0)
    teacher = network(process) if network else build_network(config, shape)
    return FewStepsObjective(TrainedModel(teacher, process, shape, config, {}), CPU, 0)


class Estimates(nn.Module):
    """A network whose estimate of the clean image is share(sigma) x."""

    def __init__(self, process: NoiseProcess, share: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.process, self.share = process, share

    def forward(self, scaled: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
        sigma = (4 * noise_level).exp()[:, None, None, None]
        c = self.process.coefficients(sigma)
        x = scaled / c.in_
        return (self.share(sigma) * x - c.skip * x) / c.out


def test_of_gaussian_data_it_learns_the_closed_form_of_the_flow() -> None:
    """For y ~ N(0, s^2) the denoiser is s^2 / (s^2 + sigma^2) x, and the path ends at s / sqrt(s^2 + sigma^2) x."""
    s = DEVIATION
    goal = objective({"steps": 32}, lambda process: Estimates(process, lambda sigma: s**2 / (s**2 + sigma**2)))
    batch = goal.batch(torch.arange(20), Draws(0, 0, 0, 20, 20, CPU))
    jumps, denoises, errs = (
        goal.loss(Estimates(goal.process, share), batch).mean()
        for share in (
            lambda sigma: s / (s**2 + sigma**2).sqrt(),
            lambda sigma: s**2 / (s**2 + sigma**2),
            lambda sigma: 0.9 * s / (s**2 + sigma**2).sqrt(),
        )
    )
    assert jumps < 0.05 * denoises  # what is left is the solver's error
    assert jumps < 0.5 * errs


def test_ddpm_along_top_and_middle_begins_its_second_jump_where_it_was_trained_to() -> None:
    paths = objective({}).paths
    unit, ends, states, _, _ = paths.at(torch.tensor([3, 4]))
    fresh, seen = torch.randn_like(unit), []

    def jump(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(x)
        return ends

    sample_ddpm(jump, paths.top * unit, karras_sigmas(2, paths.middle, paths.top), noise=lambda: fresh)
    torch.testing.assert_close(seen[1], paths.middle_of(unit, ends, fresh))
    kept = (paths.middle / paths.top) ** 2  # the posterior of Ho et al. 2020, with the end as the clean image
    law = ends + kept * (paths.top * unit - ends) + paths.middle * (1 - kept) ** 0.5 * fresh
    torch.testing.assert_close(seen[1], law)
    again = (states - paths.middle_of(unit, ends, torch.zeros_like(unit))) / paths.middle  # the noise of training
    assert again.std() == pytest.approx(1, abs=0.15)


def test_of_gaussian_data_two_jumps_draw_its_deviation() -> None:
    s = DEVIATION
    goal = objective({}, lambda process: Estimates(process, lambda sigma: s / (s**2 + sigma**2).sqrt()))
    drawn = goal._drawn(goal.model, torch.randn(500, 1, 8, 8), torch.zeros(500, dtype=torch.long))
    assert drawn.std() == pytest.approx(s, rel=0.04)


def test_a_path_is_the_same_whatever_it_is_asked_for_with() -> None:
    first, second = objective({"paths": 600}).paths, objective({"paths": 600}).paths
    together, alone = first.at(torch.tensor([3, 501])), second.at(torch.tensor([501]))
    assert all(torch.equal(one[1:], other) for one, other in zip(together, alone, strict=True))
    assert not torch.equal(together[0][0], together[0][1])
    assert together[4].tolist() == [1, 1]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images, labels = shapes(96)
    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "shapes.npz", images=images, labels=labels, class_names=["left", "lower"])
    steps.prepare_data({"source": "npz", "data_dir": str(folder / "shapes.npz"), "overlap": 1}, folder / "dataset")
    return folder / "dataset"


MODEL = {"network": NETWORK, "few_steps": {**FEW, "autoguidance": 1.2}}
TRAIN = {"examples": 256, "batch_size": 32, "learning_rate": 2e-3, "warmup_examples": 64, "guide_at": 0.5}


@pytest.mark.parametrize("at", [3, 7])  # of 4 steps and 4
def test_killed_in_either_part_it_ends_with_the_same_weights_and_draws_in_two_steps(
    at: int, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.training.loop import _Training

    whole = steps.train(MODEL, TRAIN, dataset, tmp_path / "whole", work=str(tmp_path / "a"))
    step, calls = _Training._step, []

    def killed(self: _Training) -> None:
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        step(self)

    often = {**TRAIN, "checkpoint_minutes": 1e-9}
    monkeypatch.setattr(_Training, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        steps.train(MODEL, often, dataset, tmp_path / "resumed", work=str(tmp_path / "b"))
    monkeypatch.undo()
    assert steps.train(MODEL, often, dataset, tmp_path / "resumed", work=str(tmp_path / "b"))["examples_seen"] == 256
    weights = [read_weights(tmp_path / n, read_description(tmp_path / n, "images")) for n in ("whole", "resumed")]
    assert whole["examples_seen"] == 256
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    manner = {"sampler": "ddpm", "steps": 2, "sigma_max": 20.0, "sigma_min": 1.5}
    steps.sample({"count": 4, **manner}, tmp_path / "whole", tmp_path / "drawn")
    assert (tmp_path / "drawn" / "grid.png").is_file()


def test_guidance_by_earlier_weights_needs_them(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.few_steps\.autoguidance.*set train\.guide_at"):
        steps.train(MODEL, {**TRAIN, "guide_at": None}, dataset, tmp_path / "model")
