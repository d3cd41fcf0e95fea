"""Bounds of held-out text, against likelihoods that are known exactly."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from core.text.autoregressive import unigram_log_probs
from core.text.bound import TokenPosterior, chain_bound, path_bound
from core.text.config import ProcessConfig
from core.text.data import TextSet, windows
from core.text.denoiser import Diffusion
from core.text.objective import block_posterior, token_losses
from core.text.schedule import NoisePath, Warp, alpha_sigma, diffuse, evidence
from tests.core.text.conftest import MODEL, shake

ZIPF = (1 / torch.arange(1.0, 41)).log().log_softmax(0)
LENGTH, ROWS, KINDS = 4, 2048, 6


def sphere(tokens: int, size: int) -> Tensor:
    x = torch.randn(tokens, size, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(x, dim=-1) * math.sqrt(size)


def straight(low: float, high: float, block: int = 8, tilt: float = 0.0) -> NoisePath:
    return NoisePath(Warp(ProcessConfig(gamma_min=low, gamma_max=high)), block, tilt)


def independent(rows: int) -> Tensor:
    """Tokens [rows, 64] of Zipf's law."""
    generator = torch.Generator().manual_seed(1)
    return torch.multinomial(ZIPF.exp(), rows * 64, replacement=True, generator=generator).view(rows, 64)


def agrees(difference: Tensor, within: float = 0.03) -> bool:
    """Whether the mean of independent differences is 0 within its standard error, which is small enough to tell."""
    error = float(difference.std()) / math.sqrt(len(difference))
    assert error < within
    return abs(float(difference.mean())) < 3.5 * error + 0.003  # what is left of the highest and lowest noise


class Bigrams:
    """A chain of tokens with its exact likelihood, and its exact posterior given noisy embeddings at any levels."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(2)
        self.first = (2 * torch.randn(KINDS, generator=generator)).log_softmax(0)
        self.next = (2 * torch.randn(KINDS, KINDS, generator=generator)).log_softmax(1)
        drawn = [torch.multinomial(self.first.exp(), ROWS, replacement=True, generator=generator)]
        for _ in range(LENGTH - 1):
            drawn.append(torch.multinomial(self.next[drawn[-1]].exp(), 1, generator=generator)[:, 0])
        self.tokens, self.embeddings = torch.stack(drawn, dim=1), sphere(KINDS, 8)
        pairs = self.next[self.tokens[:, :-1], self.tokens[:, 1:]].sum(dim=1)
        self.nats = -(self.first[self.tokens[:, 0]] + pairs) / LENGTH

    def posterior(self, tokens: Tensor, z: Tensor, gamma: Tensor) -> Tensor:
        """Forward and backward sums over all texts."""
        told = evidence(z, gamma, self.embeddings)
        forward, backward = [self.first + told[:, 0]], [torch.zeros(len(z), KINDS)]
        for i in range(1, LENGTH):
            forward.append(torch.logsumexp(forward[-1][:, :, None] + self.next, dim=1) + told[:, i])
            later = (backward[0] + told[:, LENGTH - i])[:, None, :]
            backward.insert(0, torch.logsumexp(later + self.next, dim=2))
        return torch.stack(forward, dim=1) + torch.stack(backward, dim=1)

    def warped(self, tilt: float, lanes: int = 1) -> NoisePath:
        """A path whose warp has seen where the chain is learned, so that it is not straight."""
        warp = Warp(ProcessConfig(gamma_min=-3, gamma_max=9))
        generator = torch.Generator().manual_seed(3)
        for level in torch.linspace(-3, 9, 200):
            gamma = torch.full((64, LENGTH), float(level))
            x = self.embeddings[self.tokens[:64]]
            logits = self.posterior(x, diffuse(x, gamma, torch.randn(x.shape, generator=generator)), gamma)
            warp.observe(gamma, token_losses(logits, self.tokens[:64]))
        warp.settle(torch.tensor(True))
        return NoisePath(warp, LENGTH, tilt, lanes)


@pytest.fixture(scope="module")
def chain() -> Bigrams:
    return Bigrams()


def unigram_posterior(unigram: Tensor, embeddings: Tensor) -> TokenPosterior:
    """The exact posterior when tokens are independent: what can be known without context."""
    return lambda tokens, z, gamma: unigram + evidence(z, gamma, embeddings)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_the_bound_of_the_exact_unigram_posterior_is_the_entropy(size: int) -> None:
    """E log p(x) = -H0 holds with equality for the true posterior: any mistake in the bound shows."""
    tokens, table = independent(128), sphere(40, size)
    path = straight(math.log(size / 64) - 3, math.log(size) + 7)
    bound = path_bound(unigram_posterior(ZIPF, table), tokens, table, path, draws=24)
    assert agrees(bound + ZIPF[tokens].mean(dim=1))


def test_a_denoiser_that_knows_less_has_a_looser_bound() -> None:
    tokens, table = independent(64), sphere(40, 16)
    known, uniform = (
        path_bound(unigram_posterior(logits, table), tokens, table, straight(-3, 9)) for logits in (ZIPF, 0 * ZIPF)
    )
    assert float(uniform.mean() - known.mean()) > 0.3


@pytest.mark.parametrize(("tilt", "lanes"), [(0.0, 1), (1.5, 1), (3.0, 1), (6.0, 1), (1.0, 2)])
def test_the_exact_denoiser_has_the_exact_likelihood_along_every_path(tilt: float, lanes: int, chain: Bigrams) -> None:
    bound = path_bound(chain.posterior, chain.tokens, chain.embeddings, chain.warped(tilt, lanes), draws=32)
    assert agrees(bound - chain.nats)


@pytest.mark.parametrize("tilt", [0.0, 1.5])
def test_chains_of_the_exact_denoiser_come_down_to_the_exact_likelihood(tilt: float, chain: Bigrams) -> None:
    """Slots that step by themselves lose what they have in common; ever less of it as steps get smaller."""
    path = chain.warped(tilt)
    one, four, many = (
        chain_bound(chain.posterior, chain.tokens, chain.embeddings, path, steps, draws=32) - chain.nats
        for steps in (1, 4, 256)
    )
    assert float(one.mean()) > float(four.mean()) + 0.05 > 0.1
    assert agrees(many)


def test_one_slot_after_the_other_is_exact_at_one_evaluation_a_token(chain: Bigrams) -> None:
    """With a tilt of block - 1 each step frees one slot, given the clean ones before it: the chain rule."""
    path = chain.warped(LENGTH - 1)
    bound = chain_bound(chain.posterior, chain.tokens, chain.embeddings, path, LENGTH, draws=LENGTH)
    assert agrees(bound - chain.nats, within=0.005)


def test_lanes_halve_the_evaluations_and_keep_most_of_what_neighbours_have_in_common(chain: Bigrams) -> None:
    """Slots that a step decides together are far apart in two lanes, and neighbours in one."""
    steps = LENGTH // 2
    one, two = (
        chain_bound(chain.posterior, chain.tokens, chain.embeddings, path, steps, draws=32) - chain.nats
        for path in (chain.warped(LENGTH - 1), chain.warped(steps - 1, lanes=2))
    )
    assert 0 < float(two.mean()) < 0.5 * float(one.mean())


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_independent_tokens_need_no_more_than_one_evaluation(steps: int) -> None:
    tokens, table = independent(128), sphere(40, 16)
    bound = chain_bound(unigram_posterior(ZIPF, table), tokens, table, straight(-4, 9.5), steps, draws=25)
    assert agrees(bound + ZIPF[tokens].mean(dim=1))


def test_the_bound_of_a_chain_is_the_ratio_of_its_densities() -> None:
    """-E log p(z_0, z_1, x) / q(z_0, z_1 | x) in one dimension, with a law of tokens that is not the true one."""
    count, table, law = 200_000, torch.tensor([[1.0], [-1.0]]), torch.tensor([0.7, 0.3]).log()
    tokens, path = torch.zeros(count, 1, dtype=torch.long), straight(-2, 2, block=1)

    def posterior(tokens: Tensor, z: Tensor, gamma: Tensor) -> Tensor:
        return (law + 0.6 * evidence(z, gamma, table)).log_softmax(dim=-1)

    generator = torch.Generator().manual_seed(4)
    (a0, s0), (a1, s1) = (alpha_sigma(level) for level in path.grid(2)[:2, 0])
    z1 = a1 + s1 * torch.randn(count, generator=generator)
    z0 = a0 / a1 * z1 + (s0**2 - (a0 / a1 * s1) ** 2).sqrt() * torch.randn(count, generator=generator)
    keep = (a0 / a1) * s1**2 / s0**2  # of z0 in the mean of q(z1 | z0, x)
    means = keep * z0[:, None] + (a1 * (1 - (a0 / a1 * s1 / s0) ** 2)) * table[:, 0]  # [count, 2]
    spread = s1 * (1 - (a0 / a1 * s1 / s0) ** 2).sqrt()
    weights = posterior(tokens, z0[:, None, None], path.grid(2)[0].expand(count, 1))[:, 0]
    step = MixtureSameFamily(Categorical(logits=weights), Normal(means, spread.expand(count, 2)))
    decoded = posterior(tokens, z1[:, None, None], path.grid(2)[1].expand(count, 1))[:, 0, 0]
    ratio = Normal(a0, s0).log_prob(z0) - Normal(0, 1).log_prob(z0)
    ratio = ratio + Normal(means[:, 0], spread).log_prob(z1) - step.log_prob(z1) - decoded
    bound = chain_bound(posterior, tokens, table, path, 2, draws=2)
    assert float(bound.mean()) == pytest.approx(float(ratio.mean()), abs=0.01)


@torch.no_grad()
def test_an_autoregressive_model_inside_has_its_own_likelihood_at_block_one(texts: TextSet) -> None:
    """Its weights alone are the exact denoiser of single tokens, and of several together they are not."""
    torch.manual_seed(0)
    size = texts.tokenizer.size
    fresh = Diffusion(size, MODEL, unigram_log_probs(texts.tokens["train"], size))
    shake(fresh.autoregressive)
    tokens = windows(texts.tokens["train"], torch.arange(0, 640, 5), MODEL.context)
    own = token_losses(fresh.autoregressive(tokens[:, :-1]), tokens).double().mean(dim=1)
    single, four = NoisePath(fresh.warp, 1), NoisePath(fresh.warp, 4)
    assert agrees(path_bound(block_posterior(fresh, 1), tokens, fresh.embeddings(), single, draws=24) - own, 0.05)
    for steps in (1, 2, 8):
        bound = chain_bound(block_posterior(fresh, 1), tokens, fresh.embeddings(), single, steps)
        assert agrees(bound - own, 0.05)
    together = chain_bound(block_posterior(fresh, 4), tokens, fresh.embeddings(), four, 1)
    assert not agrees(together - own, 0.05)
