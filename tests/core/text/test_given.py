"""Which tokens training gives: spans to be filled in, and batches whose tokens are each given or lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from core.config import TrainConfig
from core.processes.world import World
from core.randomness import Draws
from core.storage.checkpoint import CheckpointStore
from core.text.data import TextSet
from core.text.denoiser import Diffusion, Noisy
from core.text.given import endpoint_slots, hidden_spans
from core.text.objective import DiffusionObjective
from core.training.loop import fit
from core.training.objective import Batch
from core.training.result import FitResult, InterruptedTrainingError
from tests.core.text.conftest import MODEL, shake

CPU = torch.device("cpu")


def test_hidden_spans_hide_something_in_every_block_and_obey_their_share():
    known = hidden_spans(Draws(0, 0, 0, 2000, 2000, CPU), 4, 8, 0.5).view(2000, 4, 8)
    assert (~known).any(dim=-1).all()
    assert float(known.any(dim=-1).float().mean()) == pytest.approx(0.45, abs=0.05)
    assert not hidden_spans(Draws(0, 0, 0, 10, 10, CPU), 4, 8, 0.0).any()
    edges = (known.int().diff(dim=-1) != 0).sum(dim=-1)
    assert int(edges.max()) <= 2  # one hidden span, not several


def test_a_block_of_endpoints_is_a_gap_before_given_text_or_has_a_share_of_masks_of_its_own():
    known = endpoint_slots(Draws(0, 0, 0, 8000, 8000, CPU), 2, 8).view(-1, 8)
    assert (~known).any(dim=-1).all()
    rest = torch.arange(8) >= (~known).int().cumprod(dim=-1).sum(dim=-1, keepdim=True)
    is_gap = (rest == known).all(dim=-1)  # all that follows the lost tokens at the start is given
    given = torch.bincount(known.sum(dim=-1), minlength=8) / len(known)
    # Half are gaps of 1 + floor(8 u^2) tokens; of masks each number is equally likely, but that one is always left.
    gaps = torch.tensor([((8 - k) / 8) ** 0.5 - ((7 - k) / 8) ** 0.5 for k in range(8)])
    masks = torch.tensor([1 / 9] * 7 + [2 / 9])
    torch.testing.assert_close(given, (gaps + masks) / 2, atol=0.01, rtol=0)
    assert 0.5 < float(is_gap.float().mean()) < 0.75  # some masks look like gaps
    assert known[~is_gap][:, 0].any()


class Seen(DiffusionObjective):
    """Notes the noise levels and what was given, of every batch."""

    def __init__(self, texts: TextSet, share: float) -> None:
        process = MODEL.process.model_copy(update={"endpoints": share})
        super().__init__(MODEL.model_copy(update={"process": process}), texts, seed=0)
        self.batches: list[tuple[Noisy, int]] = []
        assert isinstance(self.model, Diffusion)
        shake(self.model)

    def draw(self, seen: int, rows: slice = slice(0, 8)) -> torch.Tensor:
        indices = torch.arange(8)[rows]
        draws = Draws(0, seen, rows.start, rows.stop, 8, CPU)
        return self.loss(self._watched, self.batch(indices, draws))

    def _watched(self, noisy: Noisy, block: int) -> object:
        self.batches.append((noisy, block))
        return self.model(noisy, block)


@pytest.fixture
def seen(texts: TextSet) -> Callable[[float], Seen]:
    def make(share: float) -> Seen:
        torch.manual_seed(0)
        return Seen(texts, share)

    return make


def test_a_share_of_batches_is_of_endpoints_and_the_others_are_on_paths(seen: Callable[[float], Seen]) -> None:
    goal = seen(0.5)
    ends = 0
    for step in range(60):
        goal.batches.clear()
        before = goal.model.warp.observed.clone()
        goal.draw(8 * step)
        noisy, block = goal.batches[-1]
        lost = (noisy.gamma == MODEL.process.gamma_max).all()
        ends += int(lost)
        assert bool(lost) == torch.equal(before, goal.model.warp.observed)  # masks say nothing of the way out of noise
        assert not lost or block == max(MODEL.process.blocks)
    assert 18 <= ends <= 42  # five standard deviations are 19


def test_without_endpoints_training_draws_the_numbers_that_it_drew_before_there_were_any(
    seen: Callable[[float], Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share is 0 by default, and models that were trained without it are trained again to the bit."""
    off = seen(0.0).draw(0)
    monkeypatch.setattr("core.text.objective.endpoint_slots", None)
    assert torch.equal(seen(0.0).draw(0), off)
    rarely = seen(1e-9).draw(0)
    assert not torch.equal(rarely, off)


def test_a_batch_of_endpoints_is_the_same_however_it_is_divided(seen: Callable[[float], Seen]) -> None:
    together = seen(1.0).draw(64)
    goal = seen(1.0)
    parts = [goal.draw(64, rows) for rows in (slice(0, 3), slice(3, 8))]
    torch.testing.assert_close(torch.cat(parts), together, atol=1e-4, rtol=1e-4)


class StopAfter(DiffusionObjective):
    """Raises SIGTERM against this very process in its third step, as a spot machine would."""

    def batch(self, indices: torch.Tensor, draws: Draws) -> Batch:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batch(indices, draws)


def test_training_with_endpoints_goes_on_to_the_bit_after_a_stop(texts: TextSet, tmp_path: Path) -> None:
    process = MODEL.process.model_copy(update={"endpoints": 0.5})
    model = MODEL.model_copy(update={"process": process})
    config = TrainConfig(examples=48, batch_size=8, warmup_examples=8, checkpoint_minutes=1000)

    def train(folder: str, kind: type[DiffusionObjective] = DiffusionObjective) -> FitResult:
        store = CheckpointStore(str(tmp_path / folder), config.keep)
        return fit(kind(model, texts, seed=0), config, store, World(0, 1, CPU))

    undisturbed = train("a")
    with pytest.raises(InterruptedTrainingError, match="at 24 examples"):
        train("b", StopAfter)
    resumed = train("b")
    assert resumed.resumed_at == 24
    for name, value in undisturbed.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
