"""Copies of weights in autocast's number format stand in for them, and change nothing that is computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.config import TrainConfig
from core.images import sampling
from core.images.config import ImageSample
from core.images.model import NoiseProcess, TrainedModel
from core.images.objective import ImageObjective
from core.processes.world import World
from core.training import casts, precision
from core.training.casts import Casts, cast
from core.training.objective import Objective
from core.training.step import Step
from tests.core.toy import ToyObjective
from tests.core.training.small import images, text

CPU = torch.device("cpu")
NONE = Casts(nn.Linear(1, 1), None)
KINDS: dict[str, Callable[[], Objective]] = {
    "toy": lambda: ToyObjective(dropout=0.5),
    "images": images,
    "autoregressive": lambda: text("autoregressive"),
    "diffusion": lambda: text("diffusion"),
    "masked": lambda: text("masked"),
    "original": lambda: text("original"),
}


def weights(name: str, number_format: str, *, copied: bool) -> list[Tensor]:
    """What five steps leave, in parts of three examples, with autocast's own casts or with copies."""
    torch.manual_seed(0)
    config = TrainConfig(examples=10**6, batch_size=6, micro_batch=3, optimizer="muon", warmup_examples=6)
    step = Step(KINDS[name](), config, World(0, 1, CPU), precision.choose(CPU, number_format))
    assert step.casts._copies
    if not copied:
        step.casts = NONE
    for index in range(5):
        step(6 * index, 1.0)
    return [*step.model.state_dict().values(), *step.ema.model.state_dict().values()]


@pytest.mark.parametrize("name", KINDS)
def test_steps_leave_the_very_same_weights_as_by_autocast_alone(name: str) -> None:
    mine, theirs = (weights(name, "bf16", copied=copied) for copied in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_so_do_steps_of_fp16_with_its_scaler() -> None:
    mine, theirs = (weights("toy", "fp16", copied=copied) for copied in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_images_are_drawn_to_the_very_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = images()
    assert isinstance(objective, ImageObjective)
    for parameter in objective.model.parameters():
        nn.init.normal_(parameter, std=0.1)
    model = objective.model.eval().requires_grad_(False)
    trained = TrainedModel(model, NoiseProcess(objective.config.process), objective.shape, objective.config, {}, model)
    settings = ImageSample(count=4, steps=3, guidance=1.5, autoguidance=1.2, precision="bf16")
    labels, sigmas = sampling.choose_labels(settings, trained), sampling.choose_sigmas(settings, trained.process)

    def drawn() -> np.ndarray:
        return sampling.draw(trained, settings, labels, sigmas, World(0, 1, CPU)).images

    seen: list[torch.dtype] = []
    hook = model.stem.register_forward_pre_hook(lambda layer, _: seen.append(layer.weight.dtype))
    mine = drawn()
    hook.remove()
    assert set(seen) == {torch.bfloat16}
    monkeypatch.setattr(casts, "LAYERS", ())
    assert np.array_equal(mine, drawn())
    assert mine.std() > 10


class Doubled(nn.Linear):
    """What its weights are for, only it knows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.weight.sum()


def test_weights_that_are_shared_or_used_in_ways_of_their_own_are_left_alone() -> None:
    model = nn.ModuleDict({"plain": nn.Linear(3, 3), "own": Doubled(3, 3), "table": nn.Embedding(3, 3)})
    model["tied"] = nn.Linear(3, 3)
    model["tied"].weight = model["table"].weight
    with cast(torch.bfloat16, model):
        kinds = {name: weight.dtype for name, weight in model.named_parameters() if weight.ndim == 2}
    assert kinds == {
        "plain.weight": torch.bfloat16,
        "own.weight": torch.float32,
        "table.weight": torch.float32,
    }


def test_the_weights_are_back_whatever_happens() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Conv1d(3, 3, 1))
    before = dict(model.named_parameters())
    with pytest.raises(RuntimeError), cast(torch.float16, model), cast(torch.float16, model):
        raise RuntimeError
    assert {name: id(one) for name, one in model.named_parameters()} == {name: id(one) for name, one in before.items()}
    assert all(isinstance(one, nn.Parameter) for one in model.parameters())
