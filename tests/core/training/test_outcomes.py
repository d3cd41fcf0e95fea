"""Steps are counted alike whether what they came to is known at once, as on a CPU, or late, as on a GPU."""

from pathlib import Path

import pytest
import torch

from core.config import TrainConfig
from core.storage.checkpoint import CheckpointStore
from core.training.divergence import DivergedError
from core.training.loop import fit
from core.training.outcomes import LIMIT, Outcomes
from core.training.result import FitResult
from tests.core.toy import ToyObjective
from tests.core.training.test_loop import CPU, SHORT, same, timeless


class SometimesLost(ToyObjective):
    def loss(self, *arguments):
        losses = super().loss(*arguments)
        return losses * float("inf") if self.calls in (2, 11, 12) else losses


@pytest.fixture(params=["at once", "late"])
def when(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "late":
        monkeypatch.setattr(Outcomes, "due", property(lambda self: len(self._values) >= LIMIT))
    return str(request.param)


def train(folder: Path, objective: ToyObjective, config: TrainConfig = SHORT) -> FitResult:
    return fit(objective, config, CheckpointStore(str(folder), config.keep), CPU)


def test_rows_and_weights_do_not_depend_on_when_steps_are_read(tmp_path: Path, monkeypatch) -> None:
    at_once = train(tmp_path / "a", SometimesLost())
    monkeypatch.setattr(Outcomes, "due", property(lambda self: len(self._values) >= LIMIT))
    late = train(tmp_path / "b", SometimesLost())
    assert (at_once.skipped_steps, late.skipped_steps) == (3, 3)
    assert same(at_once, late)
    assert timeless(at_once) == timeless(late)


def test_the_steps_of_a_lost_training_are_named_alike(tmp_path: Path, when: str) -> None:
    long = SHORT.model_copy(update={"examples": 10_000, "log_every": 1000})
    with pytest.raises(DivergedError, match=r"25 steps in a row, the last at 432 examples seen"):
        train(tmp_path, ToyObjective(poison_after=3), long)


def test_what_is_not_read_is_bounded() -> None:
    outcomes = Outcomes(torch.device("cuda"))
    for seen in range(LIMIT):
        assert not outcomes.due
        outcomes.add(seen, torch.zeros(3))
    assert outcomes.due
    assert [step.seen for step in outcomes.read()] == list(range(LIMIT))
    assert not outcomes.due
