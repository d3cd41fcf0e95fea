import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.config import TrainConfig
from core.errors import UserError
from core.processes.world import World
from core.storage.checkpoint import CheckpointStore, deserialize, serialize
from core.training.budget import Budget
from core.training.divergence import DivergedError
from core.training.log import TIMING
from core.training.loop import fit
from core.training.optimizers import Optimizers, default_groups
from core.training.result import FitResult, InterruptedTrainingError
from tests.core.toy import ToyObjective

CPU = World(0, 1, torch.device("cpu"))
SHORT = TrainConfig(examples=640, batch_size=16, warmup_examples=64, log_every=5, checkpoint_minutes=1000, guide_at=0.3)


def train(folder: Path, config: TrainConfig = SHORT, objective: ToyObjective | None = None) -> FitResult:
    return fit(objective or ToyObjective(), config, CheckpointStore(str(folder), config.keep), CPU)


def weights(result: FitResult) -> list[torch.Tensor]:
    return [*result.model.state_dict().values(), *(result.guide[name] for name in sorted(result.guide))]


def same(left: FitResult, right: FitResult) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(left), weights(right), strict=True))


def timeless(result: FitResult) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in TIMING} for row in result.log]


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    result = train(tmp_path, SHORT.model_copy(update={"examples": 6400, "learning_rate": 1e-2}))
    losses = [row["validation"]["loss"] for row in result.log if "validation" in row]
    assert losses[-1] < 0.2 * losses[0]
    assert result.examples_seen == 6400


class StopAfter(ToyObjective):
    """Raises SIGTERM against this very process in the given step, as a spot machine would."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def loss(self, *arguments):
        if self.calls + 1 == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(*arguments)


@pytest.mark.parametrize("step", [1, 7, 20, 39])
def test_resume_after_sigterm_is_bit_exact(tmp_path: Path, step: int) -> None:
    undisturbed = train(tmp_path / "a")
    with pytest.raises(InterruptedTrainingError, match=f"at {16 * step} examples"):
        train(tmp_path / "b", objective=StopAfter(step))
    resumed = train(tmp_path / "b")
    assert resumed.resumed_at == 16 * step
    assert same(undisturbed, resumed)
    assert timeless(undisturbed) == timeless(resumed)
    assert undisturbed.previews == resumed.previews


CHILD = """
import sys
from pathlib import Path
from tests.core.training.test_loop import CPU, SHORT, CheckpointStore, ToyObjective, fit
config = SHORT.model_copy(update={"checkpoint_minutes": 1e-9, "examples": 1600})  # a checkpoint after every step
fit(ToyObjective(), config, CheckpointStore(sys.argv[1], 2), CPU)
"""


def test_resume_after_sigkill_at_any_moment_is_bit_exact(tmp_path: Path) -> None:
    config = SHORT.model_copy(update={"examples": 1600})
    undisturbed = train(tmp_path / "a", config)
    folder, kills = tmp_path / "b", 0
    for wait in (0.0, 0.03, 0.11, 0.17):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)])
        while not list(folder.glob("manifest-*")) and child.poll() is None:
            pass
        try:
            child.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            child.kill()
            kills += child.wait() == -signal.SIGKILL
    assert kills > 0
    resumed = train(folder, config)
    assert resumed.resumed_at > 0
    assert same(undisturbed, resumed)
    assert timeless(undisturbed) == timeless(resumed)


def test_micro_batches_train_as_the_whole_batch_does(tmp_path: Path) -> None:
    whole, parts = (
        train(tmp_path / str(size), SHORT.model_copy(update={"micro_batch": size}), ToyObjective(dropout=0, exact=True))
        for size in (None, 5)
    )
    for left, right in zip(weights(whole), weights(parts), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-14)


def test_every_epoch_sees_every_example_once_in_a_new_order(tmp_path: Path) -> None:
    objective = ToyObjective()
    train(tmp_path, SHORT.model_copy(update={"examples": 100, "batch_size": 10, "warmup_examples": 0}), objective)
    first, second = objective.seen_indices[:50], objective.seen_indices[50:]
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    first, objective = train(tmp_path), ToyObjective()
    again = train(tmp_path, objective=objective)
    assert objective.calls == 0
    assert same(first, again)


def test_divergence_is_skipped_counted_and_then_named(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"not finite in 25 steps in a row.*indices \["):
        train(tmp_path, SHORT.model_copy(update={"examples": 10_000}), ToyObjective(poison_after=3))


def test_a_single_bad_step_changes_no_weight(tmp_path: Path) -> None:
    class Once(ToyObjective):
        def loss(self, *arguments):
            losses = super().loss(*arguments)
            return losses * float("inf") if self.calls == 2 else losses

    result = train(tmp_path, objective=Once())
    assert result.skipped_steps == 1
    assert all(torch.isfinite(w).all() for w in weights(result))


def test_a_lost_loss_with_finite_gradients_changes_no_weight_and_can_be_saved(tmp_path: Path) -> None:
    class Lost(ToyObjective):
        def loss(self, *arguments):
            losses = super().loss(*arguments)
            return losses + float("nan") if self.calls in (2, 7) else losses  # the gradient of a sum does not see it

    config = SHORT.model_copy(update={"checkpoint_minutes": 1e-9, "log_every": 1})
    result = train(tmp_path, config, Lost())
    assert result.skipped_steps == 2
    assert len([row for row in result.log if "loss" in row]) == 38
    assert all(torch.isfinite(w).all() for w in weights(result))


def test_a_growing_loss_is_stopped_and_named(tmp_path: Path) -> None:
    class Grows(ToyObjective):
        def loss(self, *arguments):
            return super().loss(*arguments) * 1.5**self.calls

    with pytest.raises(DivergedError, match=r"diverged: the loss is .* and was .* in the beginning"):
        train(tmp_path, objective=Grows())


def test_a_validation_loss_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    class Blind(ToyObjective):
        def validate(self, model):
            return {"loss": float("nan")}

    with pytest.raises(DivergedError, match="the validation loss is nan at 64 examples"):
        train(tmp_path, objective=Blind())


def test_the_state_of_the_fp16_scaler_resumes_bit_exactly(tmp_path: Path) -> None:
    """Two overflows move the scale before the stop; without its state the resumed steps would be scaled otherwise."""

    class Overflows(StopAfter):
        def loss(self, *arguments):
            losses = super().loss(*arguments)
            return losses * 1e38 if self.calls in (2, 5) else losses

    config = SHORT.model_copy(update={"precision": "fp16"})
    undisturbed = train(tmp_path / "a", config, Overflows(step=-1))
    with pytest.raises(InterruptedTrainingError):
        train(tmp_path / "b", config, Overflows(step=20))
    store = CheckpointStore(str(tmp_path / "b"))
    saved = store.load()
    assert saved is not None
    assert saved.meta["scaler"]["scale"] == 2.0**14  # of 2^16
    resumed = train(tmp_path / "b", config)
    assert (undisturbed.skipped_steps, resumed.skipped_steps) == (2, 2)
    assert same(undisturbed, resumed)


def test_a_checkpoint_of_another_model_is_refused_in_a_line(tmp_path: Path) -> None:
    train(tmp_path)
    other = ToyObjective()
    other.model = torch.nn.Linear(8, 3)
    with pytest.raises(UserError, match="checkpoint 0 is of another model or version"):
        train(tmp_path, objective=other)


def test_a_network_that_this_machine_cannot_train_is_refused_before_it_is_copied(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("core.training.capacity.memory_bytes", lambda: 3000)
    with pytest.raises(UserError, match="training 195 parameters needs"):
        train(tmp_path)


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    class GetsWorse(ToyObjective):
        validations = 0

        def validate(self, model):
            self.validations += 1
            if self.validations == 2:
                self.best = [p.clone() for p in model.parameters()]
            return {"loss": abs(self.validations - 2.0)}

        def preview(self, model):
            return None

    objective = GetsWorse()
    result = train(tmp_path, SHORT.model_copy(update={"early_stop": 2}), objective)
    assert objective.validations == 4
    assert result.examples_seen < 640
    assert all(torch.equal(a, b) for a, b in zip(result.model.parameters(), objective.best, strict=True))


def test_the_guide_is_what_a_training_that_ended_there_would_have_kept(tmp_path: Path) -> None:
    steady = SHORT.model_copy(update={"decay": "constant", "warmup_examples": 0})
    guide = train(tmp_path / "whole", steady).guide
    short = train(tmp_path / "short", steady.model_copy(update={"examples": 192, "guide_at": None}))
    assert short.guide == {}
    assert guide.keys() == short.model.state_dict().keys()
    assert all(torch.equal(guide[name], value) for name, value in short.model.state_dict().items())


def test_minutes_become_examples_once_and_the_decay_ends_at_zero() -> None:
    config = TrainConfig(minutes=1, batch_size=10, warmup_examples=100, decay_start=0.25)
    budget, seen = Budget(config), 0
    while not budget.finished(seen):
        rate = budget.learning_rate(seen)
        seen += 10
        budget.observe(seen, 5 + 0.1 * seen)  # five seconds of start-up, then ten examples a second
    assert abs(seen - 550) <= 10
    assert 0 < rate < 0.05
    assert budget.learning_rate(seen) == 0


def test_learning_rate_rises_then_holds_then_falls() -> None:
    budget = Budget(TrainConfig(examples=10_000, batch_size=10, warmup_examples=500, decay_start=0.5))
    factors = [budget.learning_rate(seen) for seen in range(0, 10_001, 10)]
    assert factors[:50] == sorted(factors[:50])
    assert set(factors[50:501]) == {1.0}
    assert factors[501:] == sorted(factors[501:], reverse=True)


def test_the_state_of_muon_and_adamw_survives_safetensors() -> None:
    torch.manual_seed(0)
    config = TrainConfig(examples=10, batch_size=10, optimizer="muon", weight_decay=0.0)

    def build() -> tuple[torch.nn.Module, Optimizers]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Linear(6, 2))
        groups = default_groups(model)
        groups[0] = type(groups[0])(groups[0].parameters, weight_decay=True, matrices=True)
        return model, Optimizers(groups, config, torch.device("cpu"))

    def step(model: torch.nn.Module, optimizers: Optimizers) -> None:
        optimizers.zero_grad()
        model(torch.linspace(-1, 1, 12).reshape(2, 6)).square().sum().backward()
        for optimizer in optimizers.parts.values():
            optimizer.step()

    model, optimizers = build()
    step(model, optimizers)
    twin, twin_optimizers = build()
    twin.load_state_dict(model.state_dict())
    twin_optimizers.load_state_dict(deserialize(serialize(optimizers.state_dict()), "optimizer"))
    step(model, optimizers)
    step(twin, twin_optimizers)
    assert set(optimizers.parts) == {"adamw", "muon"}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
