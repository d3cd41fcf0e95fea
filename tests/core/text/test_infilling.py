"""Infilling of held-out spans: whole tokens, weights chosen elsewhere, and the law of reranked drafts by counting."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from core.randomness import Noise
from core.text import reranking
from core.text.autoregressive import Autoregressive
from core.text.config import TextEvaluate, TextModel
from core.text.data import TextSet
from core.text.infilling import chosen_elsewhere, held_out_spans
from core.text.ratios import parts, per_character
from tests.core.text.conftest import MODEL, shake

TOKENS, GAP = 5, 2
LEFT, MIDDLE, RIGHT = torch.tensor([1, 2]), torch.tensor([3, 0]), torch.tensor([4, 1, 1])


@pytest.fixture(scope="module")
def tiny() -> Autoregressive:
    """An autoregressive model of five tokens whose laws are far from uniform, so that all 25 gaps can be summed."""
    torch.manual_seed(0)
    model = shake(Autoregressive(TOKENS, MODEL, torch.zeros(TOKENS)))
    assert isinstance(model, Autoregressive)
    model.head.weight.data.mul_(3)
    return model


@torch.no_grad()
def counted(model: Autoregressive) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(gap | left) and log p(right | left, gap) of every gap, by the model's forward pass over whole texts."""
    own, after = [], []
    for gap in itertools.product(range(TOKENS), repeat=GAP):
        text = torch.cat((LEFT, torch.tensor(gap), RIGHT))
        each = model(text[None])[0, :-1].double().log_softmax(-1).gather(-1, text[:, None])[:, 0]
        own.append(each[len(LEFT) : len(LEFT) + GAP].sum())
        after.append(each[len(LEFT) + GAP :].sum())
    return torch.stack(own), torch.stack(after)


def place(gap: torch.Tensor) -> int:
    return int(gap[0]) * TOKENS + int(gap[1])


def bounds(model: Autoregressive, drafts: int, repeats: int) -> torch.Tensor:
    noise = Noise(range(drafts - 1))
    found = [reranking.surprise(model, LEFT, MIDDLE, RIGHT, noise)[1] for _ in range(repeats)]
    return torch.tensor(found, dtype=torch.float64)


@torch.no_grad()
def test_the_cached_reading_gives_the_probabilities_of_whole_texts(tiny: Autoregressive) -> None:
    own, after = counted(tiny)
    gaps = torch.tensor(list(itertools.product(range(TOKENS), repeat=GAP)))
    laws, cache = tiny.read(tiny.shifted(LEFT[None]), 0, None)
    before, behind = reranking.log_probs(tiny, laws[:, -1], cache, gaps, RIGHT)
    torch.testing.assert_close(before, own, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(behind, after, atol=1e-4, rtol=1e-4)
    assert float(before.exp().sum()) == pytest.approx(1, abs=1e-4)


def test_one_draft_is_the_autoregressive_model_itself(tiny: Autoregressive) -> None:
    own, reranked = reranking.surprise(tiny, LEFT, MIDDLE, RIGHT, Noise([]))
    assert own == pytest.approx(-float(counted(tiny)[0][place(MIDDLE)]), abs=1e-4)
    assert reranked == pytest.approx(own, abs=1e-9)


def test_many_drafts_reach_the_exact_posterior_of_both_sides(tiny: Autoregressive) -> None:
    own, after = counted(tiny)
    exact = -float((own + after).log_softmax(0)[place(MIDDLE)])
    assert float(bounds(tiny, 4000, 4).mean()) == pytest.approx(exact, abs=0.05)
    assert abs(exact + float(own[place(MIDDLE)])) > 0.2  # the right side says something


def test_the_bound_is_above_the_exact_law_of_drafts_that_are_drawn_by_their_weights(tiny: Autoregressive) -> None:
    """With two drafts the law q, and the mean of the bound, are sums over 25 gaps."""
    own, after = counted(tiny)
    p, r = own.exp(), after.exp()
    q = p * (2 * r[:, None] / (r[:, None] + r[None]) * p[None]).sum(1)
    assert float(q.sum()) == pytest.approx(1, abs=1e-4)
    measured = bounds(tiny, 2, 300)
    error = float(measured.std()) / math.sqrt(len(measured))
    expected = -own[place(MIDDLE)] - (p * (2 * r[place(MIDDLE)] / (r[place(MIDDLE)] + r)).log()).sum()
    assert float(measured.mean()) == pytest.approx(float(expected), abs=5 * error)
    assert float(expected) >= -math.log(float(q[place(MIDDLE)]))


def test_a_weight_is_never_chosen_on_the_spans_it_is_reported_on() -> None:
    sums = torch.tensor([[1.0, 5.0], [4.0, 2.0], [1.0, 6.0], [9.0, 3.0]])  # even spans like the first, odd the second
    assert chosen_elsewhere(sums).tolist() == [5.0, 4.0, 6.0, 9.0]
    assert chosen_elsewhere(sums[:1]).tolist() == [1.0]


def test_a_ratio_of_sums_has_the_error_of_repeated_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 12, (2000, 50), generator=generator).double()
    sums = lengths * 1.5 + torch.randn(2000, 50, generator=generator).double()
    found = [per_character(*pair) for pair in zip(sums, lengths, strict=True)]
    spread = float(torch.tensor([value for value, _ in found]).std())
    assert sum(error or 0 for _, error in found) / 2000 == pytest.approx(spread, rel=0.1)
    assert sum(parts(sums[0], lengths[0])) / 50 == pytest.approx(found[0][0], abs=1e-4)
    assert per_character(sums[0, :1], lengths[0, :1])[1] is None


@pytest.mark.parametrize("blocks", [[4, 8], [16]])
def test_spans_are_whole_tokens_and_all_ways_see_the_same_sides_within_the_context(
    texts: TextSet, blocks: list[int]
) -> None:
    process = MODEL.process.model_copy(update={"blocks": tuple(blocks)})
    model: TextModel = MODEL.model_copy(update={"process": process})
    tokens = texts.tokens["test"].tolist()
    spans = held_out_spans(model, texts, 8, TextEvaluate(span_count=20))
    assert len(spans) == 20
    for left, middle, right in spans:
        text = torch.cat((left, middle, right)).tolist()
        assert any(tokens[i : i + len(text)] == text for i in range(len(tokens)))
        assert len(text) <= model.context
        assert len(middle) + len(right) <= max(blocks)
        assert len(right) > 0
