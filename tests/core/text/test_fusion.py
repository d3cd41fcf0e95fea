"""Fusion: its limits, Bayes' rule on a model small enough to count, and the exact law of draft-and-verify."""

import pytest
import torch
from scipy import stats

from core.randomness import Noise
from core.text import fusion
from core.text.denoiser import Diffusion
from core.text.generation import Settings


def laws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_mixing_has_each_model_at_its_end() -> None:
    a, b = laws(5, 7), laws(5, 7, seed=1)
    torch.testing.assert_close(fusion.mix(a, b, 0.0), a.log_softmax(-1))
    torch.testing.assert_close(fusion.mix(a, b, 1.0), b.log_softmax(-1))
    torch.testing.assert_close(fusion.mix(a, b, 0.3).exp().sum(-1), torch.ones(5, dtype=torch.float64))


def test_mixing_is_the_normalised_geometric_mean() -> None:
    a, b = laws(4).softmax(-1), laws(4, seed=1).softmax(-1)
    mean = a**0.7 * b**0.3
    torch.testing.assert_close(fusion.mix(a.log(), b.log(), 0.3).exp(), mean / mean.sum())


def test_bayes_fusion_of_exact_models_is_the_exact_posterior() -> None:
    """A joint law p(left, x, right): fusing p(x | left) with an exact pair gives p(x | left, right) at w = 1."""
    joint = laws(3, 5, 4).flatten().softmax(-1).view(3, 5, 4)
    left, right = 1, 2
    given_left = joint[left].sum(dim=-1)
    given_both = joint[left, :, right]
    fused = fusion.bayes(given_left.log(), given_both.log(), given_left.log(), 1.0)
    torch.testing.assert_close(fused.exp(), given_both / given_both.sum())
    torch.testing.assert_close(
        fusion.bayes(given_left.log(), given_both.log(), given_left.log(), 0.0).exp(), given_left / given_left.sum()
    )


def test_bayes_fusion_does_not_count_the_left_twice() -> None:
    """Where the right says nothing, w does not matter; mixing would still move the law."""
    own, diffusion = laws(6), laws(6, seed=1)
    torch.testing.assert_close(fusion.bayes(own, diffusion, diffusion, 3.0), own.log_softmax(-1))
    assert (fusion.mix(own, diffusion, 0.5) - own.log_softmax(-1)).abs().max() > 0.1


def test_accepted_drafts_have_the_target_law_whatever_the_draft() -> None:
    """Two positions, three tokens, the second law depending on the first: all nine outcomes by chi-squared."""
    generator = torch.Generator().manual_seed(0)
    count = 60_000
    first, second = laws(3).softmax(-1), laws(3, 3, seed=1).softmax(-1)
    drafts = laws(2, 3, seed=2).softmax(-1)  # wrong on purpose
    drafted = torch.stack([torch.multinomial(d, count, replacement=True, generator=generator) for d in drafts], dim=1)
    target = torch.stack((first.expand(count, 3), second[drafted[:, 0]]), dim=1)
    tokens, valid = fusion.accept(
        drafts.log().expand(count, 2, 3), drafted, target.log(), Noise.of("accept", rows=count)
    )
    rest = torch.multinomial(second[tokens[:, 0]], 1, generator=generator)[:, 0]  # the next round, where one failed
    last = torch.where(valid == 2, tokens[:, 1], rest)
    observed = torch.bincount(tokens[:, 0] * 3 + last, minlength=9)
    expected = (first[:, None] * second).flatten() * count
    assert stats.chisquare(observed.numpy(), expected.numpy() * (count / float(expected.sum()))).pvalue > 1e-3
    biased = torch.bincount(drafted[:, 0] * 3 + drafted[:, 1], minlength=9)
    assert stats.chisquare(biased.numpy(), expected.numpy() * (count / float(expected.sum()))).pvalue < 1e-6


def test_a_draft_from_the_target_itself_is_always_accepted() -> None:
    law = laws(100, 4, 6).log_softmax(-1)
    drafted = law.argmax(-1)
    tokens, valid = fusion.accept(law, drafted, law, Noise(range(100)))
    assert (valid == 4).all()
    assert (tokens == drafted).all()


@torch.no_grad()
def test_draft_and_verify_has_the_law_of_the_autoregressive_model(model: Diffusion) -> None:
    """The first token after a prompt, whole procedure: chi-squared against the model's own probabilities."""
    prompt = torch.tensor([[5, 6]]).expand(200, -1)
    model.autoregressive.head.weight.mul_(3)  # a law far from uniform
    found = fusion.verify(model.autoregressive, model, prompt, 3, 2, Settings(steps=1), Noise(range(200)))
    law = model.autoregressive(prompt[:1])[0, -1].double().softmax(-1)
    top = law.topk(3).indices
    observed = torch.tensor([int((found.tokens[:, 2] == token).sum()) for token in top])
    expected = torch.cat((law[top], 1 - law[top].sum(0, keepdim=True))) * 200
    counts = torch.cat((observed, 200 - observed.sum(0, keepdim=True)))
    assert stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


@torch.no_grad()
def test_reweighting_with_a_huge_lambda_keeps_the_likeliest_candidate(model: Diffusion) -> None:
    candidates = torch.randint(model.vocabulary, (2, 5, 6), generator=torch.Generator().manual_seed(3))
    chosen = fusion.reweight(model.autoregressive, candidates, 1e6, Noise(range(2)))
    scores = fusion.total_log_prob(model.autoregressive, candidates.view(10, 6)).view(2, 5)
    torch.testing.assert_close(chosen, candidates[torch.arange(2), scores.argmax(dim=1)])


@torch.no_grad()
def test_the_pair_of_laws_differs_by_the_right_side_alone(model: Diffusion) -> None:
    left, middle, right = torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5]]), torch.tensor([[6, 7, 8]])
    own, both, alone = fusion.middle_laws(model.autoregressive, model, left, middle, right, Noise([0]))
    other = fusion.middle_laws(model.autoregressive, model, left, middle, right + 50, Noise([0]))
    assert own.shape == both.shape == alone.shape == (1, 2, model.vocabulary)
    torch.testing.assert_close(other[0], own)
    torch.testing.assert_close(other[2], alone)
    assert (other[1] - both).abs().max() > 1e-4
    torch.testing.assert_close(own, model.autoregressive(torch.cat((left, middle), 1))[:, 3:5], rtol=1e-4, atol=1e-4)


def test_a_mix_outside_of_both_ends_is_still_a_law() -> None:
    assert fusion.bayes(laws(3), laws(3, seed=1), laws(3, seed=2), 4.0).exp().sum() == pytest.approx(1)
