"""The two streams: what a block sees, and that training and sampling are one function."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from core.randomness import Draws, Noise
from core.text.autoregressive import Autoregressive, generate, unigram_log_probs
from core.text.data import TextSet, windows
from core.text.denoiser import REACH, Diffusion, Noisy
from core.text.generation import Block, Prefix, Settings, fill
from core.text.generation import generate as generate_blocks
from core.text.objective import DiffusionObjective, gamma_losses, noisy_windows
from core.text.schedule import evidence, tilted
from tests.core.text.conftest import MODEL, shake

CPU = torch.device("cpu")


def whole(model: Diffusion, tokens: torch.Tensor, block: int, seed: int = 0) -> Noisy:
    draws = torch.Generator().manual_seed(seed)
    gamma = torch.linspace(-1, 9, tokens.numel()).view(tokens.shape)
    noise = torch.randn(*tokens.shape, MODEL.process.embedding, generator=draws)
    return noisy_windows(model, tokens, gamma, noise, torch.zeros_like(tokens, dtype=torch.bool), block)


@pytest.fixture
def tokens(texts: TextSet) -> torch.Tensor:
    return windows(texts.tokens["train"], torch.tensor([0, 100, 333]), MODEL.context)


@pytest.mark.parametrize("block", [1, 4, 16])
@torch.no_grad()
def test_a_block_is_denoised_alike_in_training_and_in_sampling(model: Diffusion, tokens: torch.Tensor, block: int):
    noisy = whole(model, tokens, block)
    logits, _ = model(noisy, block)
    for start in range(0, 16, block):
        part = slice(start, start + block)
        unknown = torch.zeros(3, block, dtype=torch.bool)
        for row in range(3):  # noise levels differ by row, the sampler's do not
            one = Prefix(model, tokens[row : row + 1, :start], block)
            among = Block.after(one, tokens[row : row + 1, part], unknown[:1])
            found = among.logits(model, one.cache, 1.0, noisy.z[row : row + 1, part], noisy.gamma[row, part], None)
            torch.testing.assert_close(found[0], logits[row, part], atol=2e-4, rtol=1e-3)


@torch.no_grad()
def test_the_clean_stream_is_the_autoregressive_model(model: Diffusion, tokens: torch.Tensor):
    _, clean = model(whole(model, tokens, 4), 4)
    torch.testing.assert_close(clean, model.autoregressive(tokens[:, :11]), atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_an_autoregressive_model_is_already_the_exact_denoiser_of_the_next_token(texts: TextSet, tokens: torch.Tensor):
    """Warm start: before any training of diffusion, log p(x | z, left) = log p_AR(x | left) + log p(z | x)."""
    torch.manual_seed(0)
    size = texts.tokenizer.size
    fresh = Diffusion(size, MODEL, unigram_log_probs(texts.tokens["train"], size))
    shake(fresh.autoregressive)
    noisy = whole(fresh, tokens, 1)
    logits, _ = fresh(noisy, 1)
    own = evidence(noisy.z, noisy.gamma, fresh.embeddings())
    expected = (fresh.autoregressive(tokens)[:, :-1] + own).log_softmax(-1)
    torch.testing.assert_close(logits.log_softmax(-1), expected, atol=2e-4, rtol=1e-3)


@torch.no_grad()
def test_a_fresh_model_is_the_posterior_without_context(texts: TextSet):
    size = texts.tokenizer.size
    fresh = Diffusion(size, MODEL, unigram_log_probs(texts.tokens["train"], size))
    for row in gamma_losses(fresh, windows(texts.tokens["train"], torch.arange(8), 16), 4):
        assert row["loss"] == pytest.approx(row["no_context"], abs=1e-4)


@torch.no_grad()
def test_a_block_sees_its_past_and_itself_and_nothing_after(model: Diffusion, tokens: torch.Tensor):
    noisy = whole(model, tokens, 4)
    logits, _ = model(noisy, 4)
    changed = noisy.z.clone()
    changed[:, 8:12] += 1  # the noise of the third block
    other, _ = model(replace(noisy, z=changed), 4)
    same = (other == logits).all(dim=-1).all(dim=0)
    assert same.tolist() == [True] * 8 + [False] * 4 + [True] * 4
    later = tokens.clone()
    later[:, 5] = (later[:, 5] + 1) % model.vocabulary  # a clean token of the second block
    other, _ = model(replace(noisy, tokens=later, before=model.autoregressive.shifted(later)[:, :-1]), 4)
    same = torch.isclose(other, logits, atol=1e-5).all(dim=-1).all(dim=0)
    assert same[:8].all()
    assert not same[8:].any()


@torch.no_grad()
def test_a_known_token_changes_the_others_and_an_unknown_one_is_not_read(model: Diffusion, tokens: torch.Tensor):
    noisy = whole(model, tokens, 16)
    told = torch.zeros_like(tokens, dtype=torch.bool)
    told[:, 10] = True
    other = tokens.clone()
    other[:, 10] = (other[:, 10] + 1) % model.vocabulary
    base, _ = model(noisy, 16)
    unread, _ = model(replace(noisy, tokens=other), 16)
    torch.testing.assert_close(unread, base)
    read, _ = model(replace(noisy, known=told), 16)
    changed, _ = model(replace(noisy, known=told, tokens=other), 16)
    assert ((read - changed).abs().amax(dim=-1) > 1e-4).all()


@torch.no_grad()
def test_without_a_prefix_blocks_know_nothing_of_each_other(model: Diffusion, tokens: torch.Tensor):
    noisy = replace(whole(model, tokens, 4), has_prefix=False)
    logits, clean = model(noisy, 4)
    assert clean is None
    turned = Noisy(
        noisy.z.roll(4, 1), noisy.gamma.roll(4, 1), tokens, noisy.known, noisy.before, noisy.begins, False, None
    )
    torch.testing.assert_close(model(turned, 4)[0], logits.roll(4, 1), atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_generation_with_a_cache_follows_the_autoregressive_law(model: Diffusion):
    """Greedy tokens with the cache are greedy tokens without it."""
    prompt = torch.tensor([[1, 2, 3]])
    ids = generate(model.autoregressive, prompt, 12, Noise([0]), temperature=1e-6)
    for place in range(3, 12):
        assert int(model.autoregressive(ids[:, :place])[0, -1].argmax()) == int(ids[0, place])


@torch.no_grad()
@pytest.mark.parametrize("sampler", ["mixture", "ddpm", "ddim", "q"])
def test_samples_keep_their_prompt_and_have_their_length_beyond_the_context(model: Diffusion, sampler: str):
    prompt = torch.tensor([[1, 2, 3], [4, 5, 6]])
    settings = Settings(sampler=sampler, steps=3, guidance=1.5)
    ids = generate_blocks(model, prompt, 41, 4, settings, Noise([0, 1]))
    assert ids.shape == (2, 41)
    assert (ids[:, :3] == prompt).all()
    assert generate(model.autoregressive, prompt, 41, Noise([0, 1])).shape == (2, 41)


@torch.no_grad()
def test_a_guess_knows_what_the_step_before_has_decided(texts: TextSet):
    """Without context the posterior of any z is known: each guess in sampling is that of the z it is given with."""
    seen: list[Noisy] = []

    class Seen(Diffusion):
        def denoise(self, noisy: Noisy, *rest: Any) -> torch.Tensor:
            seen.append(noisy)
            return super().denoise(noisy, *rest)

    size = texts.tokenizer.size
    fresh = Seen(size, MODEL, unigram_log_probs(texts.tokens["train"], size))
    prompt = torch.tensor([[1, 2, 3], [4, 5, 6]])
    generate_blocks(fresh, prompt, 7, 4, Settings("ddpm", steps=3, temperature=0.9), Noise([0, 1]))
    assert [one.guess is None for one in seen] == [True, False, False]
    for one in seen[1:]:
        own = fresh.mean((fresh.unigram + evidence(one.z, one.gamma, fresh.embeddings())) / 0.9)
        torch.testing.assert_close(one.guess, own, atol=1e-4, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(
    ("sampler", "steps", "exact"), [("mixture", 1, True), ("mixture", 4, True), ("ddpm", 4, False)]
)
def test_the_mixture_draws_independent_tokens_exactly(texts: TextSet, sampler: str, steps: int, exact: bool):
    """A fresh model is the exact posterior of tokens that are independent: few steps are then as good as many."""
    size = texts.tokenizer.size
    fresh = Diffusion(size, MODEL, unigram_log_probs(texts.tokens["train"], size))
    empty = torch.zeros(1500, 0, dtype=torch.long)
    ids = generate_blocks(fresh, empty, 8, 4, Settings(sampler, steps), Noise.of("exact", rows=1500))
    expected = fresh.unigram.exp() * ids.numel()
    often = expected > 20
    errors = (ids.flatten().bincount(minlength=size) - expected)[often] / expected[often].sqrt()
    spread = float(errors.square().mean())  # about 1 for draws of the law, +- sqrt(2 / tokens)
    assert (spread < 1 + 4 * (2 / int(often.sum())) ** 0.5) is exact, spread


@torch.no_grad()
def test_a_gap_is_filled_with_its_number_of_tokens_and_the_right_side_matters(model: Diffusion):
    left, right = torch.tensor([[1, 2]]), torch.tensor([[7, 8, 9]])
    settings = Settings(steps=4)
    filled = [fill(model, left, 4, side, settings, Noise([seed])) for side in (right, right + 20) for seed in range(8)]
    assert all(ids.shape == (1, 4) for ids in filled)
    assert any((a != b).any() for a, b in zip(filled[:8], filled[8:], strict=True))


@torch.no_grad()
def test_a_slot_is_told_by_the_tokens_after_it_within_its_block(model: Diffusion, tokens: torch.Tensor):
    """The last of a block has none, and a token that is lost says nothing."""
    given = torch.ones_like(tokens, dtype=torch.bool)
    noisy = replace(whole(model, tokens, 4), known=given, gamma=torch.full(tokens.shape, 9.0))
    own = evidence(noisy.z, noisy.gamma, model.embeddings())
    told = model.slots(noisy)[1] - own
    assert (told[:, [0, 1, 2]].std(dim=-1) > 0.01).all()
    torch.testing.assert_close(told[:, 3::4], torch.zeros(3, 4, told.shape[-1]), atol=1e-4, rtol=0)
    other = tokens.clone()
    other[:, 7] = (other[:, 7] + 1) % model.vocabulary  # the last of the second block
    changed = (model.slots(replace(noisy, tokens=other))[1] - own - told).abs().amax(dim=(0, 2)) > 1e-4
    assert changed.nonzero().flatten().tolist() == [4, 5, 6]
    unknown = replace(noisy, known=~given, gamma=torch.full(tokens.shape, 20.0), guess=model.embeddings()[tokens])
    nothing = model.slots(unknown)[1] - evidence(noisy.z, unknown.gamma, model.embeddings())
    assert float(nothing.abs().max()) < 0.1 * float(told.abs().max())  # a guess of what is lost is no evidence
    lost = (model.unigram.softmax(dim=-1) @ model.embeddings()).expand(1, 4, -1)
    unsure = model.told(model.embeddings(), lost, lost, torch.ones(4, REACH, dtype=torch.bool))
    torch.testing.assert_close(unsure, torch.zeros_like(unsure), atol=1e-4, rtol=0)


def test_all_tokens_of_the_clean_text_teach_what_the_next_ones_say(texts: TextSet):
    torch.manual_seed(0)
    goal = DiffusionObjective(MODEL, texts, seed=0)
    evidence_of_next = goal.model.next_evidence
    assert evidence_of_next is not None
    losses = goal.loss(goal.model, goal.batch(torch.arange(4), Draws(0, 0, 0, 4, 4, CPU)))
    losses.mean().backward()
    assert evidence_of_next.out.weight.grad is not None
    assert float(evidence_of_next.out.weight.grad.abs().max()) > 0
    without = MODEL.model_copy(update={"process": MODEL.process.model_copy(update={"next_evidence": False})})
    torch.manual_seed(0)
    plain = DiffusionObjective(without, texts, seed=0)
    assert plain.model.next_evidence is None
    other = plain.loss(plain.model, plain.batch(torch.arange(4), Draws(0, 0, 0, 4, 4, CPU)))
    assert (losses > other).all()  # untrained it says nothing, and has a loss of its own


def test_lanes_are_trained_as_they_are_sampled(texts: TextSet, monkeypatch: pytest.MonkeyPatch):
    seen: set[tuple[int, int, float]] = set()

    def noted(u: torch.Tensor, block: int, tilt: torch.Tensor, lanes: int) -> torch.Tensor:
        seen.add((block, lanes, float(tilt)))
        return tilted(u, block, tilt, lanes)

    monkeypatch.setattr("core.text.objective.tilted", noted)
    process = MODEL.process.model_copy(update={"blocks": (4, 8), "lanes": (4, 2), "tilt": (5.0, 7.0)})
    goal = DiffusionObjective(MODEL.model_copy(update={"process": process}), texts, seed=0)
    for clock in range(0, 80, 4):
        goal.loss(goal.model, goal.batch(torch.arange(4), Draws(0, clock, 0, 4, 4, CPU)))
    assert seen == {(4, 4, 0.0), (8, 2, 3.0)}  # with a larger tilt a slot would wait after the one before it


@torch.no_grad()
def test_all_steps_of_a_filling_are_for_the_gap(texts: TextSet):
    levels: list[torch.Tensor] = []

    class Seen(Diffusion):
        def denoise(self, noisy: Noisy, *rest: Any) -> torch.Tensor:
            levels.append(noisy.gamma[0])
            return super().denoise(noisy, *rest)

    size = texts.tokenizer.size
    fresh = Seen(size, MODEL, unigram_log_probs(texts.tokens["train"], size))
    fill(fresh, torch.tensor([[1, 2]]), 3, torch.tensor([[7, 8, 9, 4]]), Settings(steps=5), Noise([0]))
    seen = torch.stack(levels)
    assert torch.equal(seen[:, :3], fresh.path(3, 5).grid(5)[:5])
    assert (seen[:, 3:] == MODEL.process.gamma_max).all()


def test_the_loss_is_the_same_for_the_same_clock_and_splits_over_micro_batches(texts: TextSet):
    torch.manual_seed(0)
    goal = DiffusionObjective(MODEL, texts, seed=0)
    shake(goal.model)
    indices = torch.arange(8)
    whole_batch = goal.loss(goal.model, goal.batch(indices, Draws(0, 64, 0, 8, 8, CPU)))
    torch.manual_seed(0)
    other = DiffusionObjective(MODEL, texts, seed=0)
    shake(other.model)
    parts = [other.loss(other.model, other.batch(indices[i : i + 4], Draws(0, 64, i, i + 4, 8, CPU))) for i in (0, 4)]
    torch.testing.assert_close(torch.cat(parts), whole_batch, atol=1e-4, rtol=1e-4)


def test_gradients_reach_every_parameter(texts: TextSet):
    torch.manual_seed(0)
    goal = DiffusionObjective(MODEL, texts, seed=0)
    shake(goal.model)
    for seen in range(0, 64 * 8, 64):
        goal.loss(goal.model, goal.batch(torch.arange(4), Draws(0, seen, 0, 4, 4, CPU))).mean().backward()
    without = [name for name, p in goal.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert isinstance(goal.model, Diffusion)
    assert isinstance(goal.model.autoregressive, Autoregressive)
