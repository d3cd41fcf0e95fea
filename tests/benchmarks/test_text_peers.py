"""Peers of text mean what their papers say: bounds by masks, the same start as ours, a middle that comes last."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import text_peers
from benchmarks.text_peers import FillInTheMiddleObjective, filled_nats, mask_bound, mask_evaluations, mask_logits
from core.randomness import Noise
from core.text.autoregressive import Autoregressive
from core.text.config import TextModel
from core.text.denoiser import Diffusion
from tests.core.text.conftest import shake

CONFIG = TextModel.model_validate(
    {"context": 16, "transformer": {"width": 16, "depth": 1, "heads": 2}, "process": {"blocks": [4], "embedding": 8}}
)
JOINT = torch.tensor([[0.45, 0.05], [0.15, 0.35]])  # of the two tokens of a block


def exact(tokens: Tensor, masks: Tensor) -> Tensor:
    """Log-laws of each token of a block of two given the other where that is known."""
    first, second = tokens.T
    alone = JOINT.sum(1).expand(len(tokens), 2), JOINT.sum(0).expand(len(tokens), 2)
    given = JOINT.T[second] / JOINT.sum(0)[second][:, None], JOINT[first] / JOINT.sum(1)[first][:, None]
    laws = [torch.where(masks[:, 1 - i, None], alone[i], given[i]) for i in (0, 1)]
    return torch.stack(laws, dim=1).log()


def test_one_step_of_masks_takes_tokens_for_independent_and_many_reach_the_exact_likelihood() -> None:
    counts = (JOINT * 2000).round().long()
    rows = [[a, b] for a, b in itertools.product(range(2), range(2)) for _ in range(int(counts[a, b]))]
    tokens = torch.tensor(rows)
    entropy = -float((JOINT * JOINT.log()).sum())
    alone = sum(-float((law * law.log()).sum()) for law in (JOINT.sum(0), JOINT.sum(1)))
    assert 2 * float(mask_bound(exact, tokens, 2, 1, draws=1).mean()) == pytest.approx(alone, abs=1e-4)
    many = 2 * float(mask_bound(exact, tokens, 2, 64, draws=40).mean())
    assert many == pytest.approx(entropy + (alone - entropy) / 64, abs=0.02)
    assert entropy < alone - 0.1


def test_a_step_that_uncovers_nothing_is_no_evaluation() -> None:
    assert mask_evaluations(8, 1) == 1 / 8
    assert mask_evaluations(1, 50) == pytest.approx(1)
    assert mask_evaluations(8, 10_000) == pytest.approx(1, abs=1e-3)
    drawn = [len({math.floor(4 * u) for u in row}) for row in torch.rand(4000, 8).tolist()]
    assert mask_evaluations(8, 4) == pytest.approx(sum(drawn) / len(drawn) / 8, abs=0.01)


def test_block_masks_begin_as_the_autoregressive_model_and_see_no_hidden_token() -> None:
    torch.manual_seed(0)
    network = Diffusion(20, CONFIG, torch.zeros(20)).eval()
    torch.nn.init.normal_(network.autoregressive.head.weight)
    tokens, masks = torch.randint(20, (2, 16)), torch.ones(2, 16, dtype=torch.bool)
    with torch.no_grad():
        logits, own = mask_logits(network, 4)(tokens, masks), network.autoregressive(tokens)
        torch.testing.assert_close(logits[:, ::4], own[:, :-1:4])
        shake(network)
        masks[:, 1::2] = False
        before = mask_logits(network, 4)(tokens, masks)
        changed = tokens.clone()
        changed[:, 14] = (changed[:, 14] + 1) % 20  # hidden, in the last block, which nobody reads
        torch.testing.assert_close(mask_logits(network, 4)(changed, masks), before)
        changed[:, 15] = (changed[:, 15] + 1) % 20  # given
        assert not torch.equal(mask_logits(network, 4)(changed, masks)[:, 12:15], before[:, 12:15])


def test_blocks_are_written_to_the_length_that_is_asked_for() -> None:
    torch.manual_seed(0)
    network = Diffusion(20, CONFIG, torch.zeros(20)).eval()
    made = text_peers.generate_blocks(network, 10, 2, Noise(range(3)))
    assert made.shape == (3, 10)
    assert made.min() >= 0
    assert made.max() < 20


def test_the_middle_comes_last_and_nothing_is_lost() -> None:
    moved: Any = SimpleNamespace(config=CONFIG, gap=20)
    tokens = torch.arange(16).repeat(3, 1)
    plain, filled, at_end = FillInTheMiddleObjective._moved(
        moved, tokens, torch.tensor([[0.1, 0.5, 0.5], [0.9, 0.9, 0.0], [0.9, 0.0, 0.999]])
    ).tolist()
    assert plain == [*range(16), 20, 21]
    assert filled == [20, *range(3, 16), 21, 0, 1, 2]
    assert at_end == [*range(15), 20, 21, 15]


def test_nats_of_a_filled_middle_are_those_of_its_tokens_after_both_sides() -> None:
    torch.manual_seed(0)
    model = Autoregressive(22, CONFIG, torch.zeros(22)).eval()
    torch.nn.init.normal_(model.head.weight)
    left, middle, right = torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([5])
    with torch.no_grad():
        laws = model(torch.tensor([[1, 2, 20, 5, 21, 3]]))[0, :, :20].log_softmax(-1)
    assert filled_nats(model, left, middle, right) == pytest.approx(-float(laws[5, 3] + laws[6, 4]), rel=1e-5)
