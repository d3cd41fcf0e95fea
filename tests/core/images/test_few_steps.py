"""A model that jumps: its loss is least for the function that it ought to become, and its training can be killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.images.config import FewSteps, ImageModel
from core.images.few_steps import FIRST, LAST, FewStepsObjective, levels
from core.images.model import ImageShape
from core.images.objective import ImageObjective
from core.randomness import Draws
from core.storage.model_folder import read_description, read_weights
from tests.core.asked import Steps
from tests.core.images.test_steps import shapes

CPU, DEVIATION = torch.device("cpu"), 0.5
NETWORK = {"name": "unet", "channels": [8, 16], "blocks": [1, 1], "embedding": 16, "head_channels": 8}
steps = Steps("images")


def objective(**settings: object) -> FewStepsObjective:
    model = ImageModel.model_validate({"network": NETWORK}).with_deviation(DEVIATION)
    shape = ImageShape(channels=1, height=8, width=8, class_names=("a", "b"))
    pixels = np.random.default_rng(0).normal(127.5, 127.5 * DEVIATION, (300, 8, 8)).round().clip(0, 255)
    split = pixels.astype(np.uint8), np.arange(300) % 2
    teacher = ImageObjective(model, shape, split, split).model
    return FewStepsObjective(model, shape, split, split, settings=FewSteps(**settings), teacher=teacher)


class Estimates(nn.Module):
    """A network whose estimate of the clean image is share(sigma) x."""

    def __init__(self, goal: FewStepsObjective, share: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.process, self.share = goal.process, share

    def forward(self, scaled: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
        sigma = (4 * noise_level).exp()[:, None, None, None]
        c = self.process.coefficients(sigma)
        x = scaled / c.in_
        return (self.share(sigma) * x - c.skip * x) / c.out


def test_of_gaussian_data_it_learns_the_closed_form_of_the_flow() -> None:
    """For y ~ N(0, s^2) the denoiser is s^2 / (s^2 + sigma^2) x, and the path ends at s / sqrt(s^2 + sigma^2) x."""
    goal = objective(guidance=1.0)
    s = DEVIATION
    goal.teacher = Estimates(goal, lambda sigma: s**2 / (s**2 + sigma**2))
    batch = goal.batch(torch.arange(300), Draws(0, 10**9, 0, 300, 300, CPU))
    jumps, denoises, errs = (
        goal.loss(Estimates(goal, share), batch).mean()
        for share in (
            lambda sigma: s / (s**2 + sigma**2).sqrt(),
            lambda sigma: s**2 / (s**2 + sigma**2),
            lambda sigma: 0.9 * s / (s**2 + sigma**2).sqrt(),
        )
    )
    assert jumps < 0.05 * denoises  # what is left is Euler's error
    assert jumps < 0.5 * errs


def test_the_teachers_guidance_becomes_part_of_it() -> None:
    """Two classes at -1 and 1, none at 0: guided by 2 the teacher's estimate of a class is twice as far."""
    goal = objective(guidance=2.0, guidance_low=0.5, guidance_high=5.0)

    class Places(nn.Module):
        def forward(self, scaled: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
            sigma = (4 * noise_level).exp()[:, None, None, None]
            c = goal.process.coefficients(sigma)
            where = torch.tensor([-1.0, 1.0, 0.0])[labels][:, None, None, None]
            return (where - c.skip * scaled / c.in_) / c.out

    goal.teacher = Places()
    x, labels = torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 1])
    found = goal._guided(x, torch.tensor([1.0, 1.0, 0.3]), labels)
    torch.testing.assert_close(found[:, 0, 0, 0], torch.tensor([-2.0, 2.0, 1.0]))


def test_paths_have_twice_as_many_levels_each_time() -> None:
    assert [levels(seen, 100) for seen in (0, 99, 100, 250, 10**9)] == [FIRST, FIRST, 2 * FIRST, 4 * FIRST, LAST]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images, labels = shapes(96)
    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "shapes.npz", images=images, labels=labels, class_names=["left", "lower"])
    steps.prepare_data({"source": "npz", "data_dir": str(folder / "shapes.npz"), "overlap": 1}, folder / "dataset")
    return folder / "dataset"


MODEL = {"network": NETWORK, "few_steps": {"share": 0.5, "doubling": 64, "autoguidance": 1.2}}
TRAIN = {"examples": 384, "batch_size": 32, "learning_rate": 2e-3, "warmup_examples": 64, "guide_at": 0.5}


def test_it_is_trained_after_the_diffusion_model_and_draws_in_two_steps(dataset: Path, tmp_path: Path) -> None:
    facts = steps.train(MODEL, TRAIN, dataset, tmp_path / "model")
    assert facts["examples_seen"] == 384
    steps.sample({"count": 4, "sampler": "ddpm", "steps": 2, "sigma_min": 0.8}, tmp_path / "model", tmp_path / "drawn")
    assert (tmp_path / "drawn" / "grid.png").is_file()


@pytest.mark.parametrize("at", [4, 9])  # of 6 steps and 6
def test_killed_in_either_part_it_ends_with_the_same_weights(
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
    assert steps.train(MODEL, often, dataset, tmp_path / "resumed", work=str(tmp_path / "b"))["examples_seen"] == 384
    weights = [read_weights(tmp_path / n, read_description(tmp_path / n, "images")) for n in ("whole", "resumed")]
    assert whole["examples_seen"] == 384
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
