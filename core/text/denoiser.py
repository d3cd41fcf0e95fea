"""Gaussian diffusion of token embeddings, block after block, with an autoregressive model inside.

Two streams run through one transformer. The clean stream reads the text causally: it is the autoregressive model. The
noisy stream denoises blocks of tokens; each block looks at the clean text before it and, both ways, at itself (as in
block diffusion, Arriola et al. 2025). One block as long as the context is diffusion of the whole text at once.

A noisy slot is built so that an autoregressive model is already a denoiser: it stands where the clean stream predicts
that token and is fed the *previous* token, the true one where it is known, else the mean of what it may be. With the
evidence of its own noisy embedding added to the logits, the first slot of a block begins as the exact posterior given
the text before it. Training adds the rest: what the other noisy tokens say. What the next token says can be a term of
its own (`NextEvidence`), learned from all of the clean text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.text.autoregressive import Autoregressive
from core.text.config import TextModel
from core.text.schedule import NoisePath, Warp, evidence
from core.text.transformer import Cache

GAMMA_FEATURES = 64
REACH = 4  # tokens after a slot that say something of it beside attention


@dataclass(frozen=True)
class Noisy:
    """Slots of the noisy stream; B rows of L slots each.

    Args:
        z: noisy embeddings [B, L, d].
        gamma: noise levels [B, L].
        tokens: ids [B, L]; read only where `known`, and by the slot after it.
        known: clean tokens given as context, bool [B, L].
        before: id [B, L] of the token before each slot that begins a block.
        begins: bool [L]: the slot begins a block.
        has_prefix: whether text before the block is given at all.
        guess: mean embeddings [B, L, d] that the model found before (self-conditioning), or None.
    """

    z: Tensor
    gamma: Tensor
    tokens: Tensor
    known: Tensor
    before: Tensor
    begins: Tensor
    has_prefix: bool = True
    guess: Tensor | None = None


class NextEvidence(nn.Module):
    """log p(next | token), up to a constant of the tokens: what the tokens after a slot say of the slot's own.

    By Bayes' rule p(x | before, next) is proportional to p(x | before) p(next | x, before), whose last factor is taken
    for one of few tokens: the slot's, the one before it and the `REACH` after it. Untrained it says nothing.

    Args:
        size: of an embedding.
        width: hidden features.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(size, width), nn.Linear(REACH * size, width, bias=False)
        self.out = nn.Linear(width, size, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, previous: Tensor, following: Tensor, table: Tensor) -> Tensor:
        """Evidence [B, L, V] for the tokens of `table` [V, d]; 0 where nothing is known of the next ones.

        Args:
            previous: (mean) embeddings [B, L, d] of the tokens before.
            following: those [B, L, REACH, d] of the tokens after, less that of a token of which nothing is known.
        """
        left = self.before(previous)
        found: Tensor = self.out(F.gelu(left + self.after(following.flatten(-2))) - F.gelu(left)) @ table.T
        return found


class Diffusion(nn.Module):
    """Denoiser of token embeddings: logits of the clean token at every noisy slot.

    Args:
        vocabulary: tokens.
        config: sizes and noise process.
        unigram: log-probabilities [V] of single tokens.
    """

    unigram: Tensor

    def __init__(self, vocabulary: int, config: TextModel, unigram: Tensor) -> None:
        super().__init__()
        self.vocabulary, self.config = vocabulary, config
        self.autoregressive = Autoregressive(vocabulary, config, unigram)
        self.warp = Warp(config.process)
        self.register_buffer("unigram", unigram.clone())
        size, width = config.process.embedding, config.transformer.width
        self.from_noise = nn.Linear(size, width, bias=False)
        self.from_guess = nn.Linear(size, width, bias=False)
        self.from_known = nn.Linear(size, width, bias=False)
        self.from_gamma = nn.Linear(GAMMA_FEATURES, width)
        for layer in (self.from_noise, self.from_guess, self.from_known, self.from_gamma):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.from_gamma.bias)
        self.next_evidence = NextEvidence(size, width) if config.process.next_evidence else None

    def embeddings(self) -> Tensor:
        """Embeddings of the tokens [V, d], each of length sqrt(d)."""
        return self.autoregressive.embeddings()[:-1]

    def mean(self, logits: Tensor) -> Tensor:
        """The mean embedding [B, L, d] of laws [B, L, V]: the denoised x0 = softmax(logits) E."""
        return logits.softmax(dim=-1) @ self.embeddings()

    def path(self, block: int, steps: int, tilt: float | None = None) -> NoisePath:
        """The noise levels that a block of `block` slots goes through in `steps`: `NoisePath.sampled`."""
        return NoisePath.sampled(self.warp, self.config.process, block, steps, tilt)

    def forward(self, noisy: Noisy, block: int) -> tuple[Tensor, Tensor | None]:
        """Logits [B, L, V] of whole contexts cut into blocks, and the next-token logits [B, C, V] of the clean stream.

        Without a prefix every block is alone; the clean stream is None then, and when one block is the whole context.
        """
        batch, length = noisy.tokens.shape
        inputs, own = self.slots(noisy)
        positions = torch.arange(length, device=inputs.device)
        model = self.autoregressive
        if not noisy.has_prefix:
            alone = model.transformer(inputs.view(-1, block, inputs.shape[-1]), positions[:block])
            return model.head(alone).view(batch, length, -1) + own, None
        read = length - block  # the last block's first slot carries the token before it, and nobody comes after
        clean = model.embed(model.embeddings()[model.shifted(noisy.tokens)[:, :read]])
        mask = _two_stream_mask(length, block, inputs.device)
        both = model.transformer(torch.cat((clean, inputs), dim=1), torch.cat((positions[:read], positions)), mask=mask)
        logits = model.head(both)
        return logits[:, read:] + own, logits[:, :read] if read else None

    def denoise(self, noisy: Noisy, positions: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits [B, L, V] of one block at `positions` [L], after the clean text in `cache`, if there is any.

        The block's own keys and values are there where the next text will be.
        """
        inputs, own = self.slots(noisy)
        model = self.autoregressive
        mask = cache.seen(positions[-1:].expand(len(positions))) if cache is not None and cache.fixed else None
        logits: Tensor = model.head(model.transformer(inputs, positions, mask=mask, cache=cache)) + own
        return logits

    def told(self, table: Tensor, previous: Tensor, tokens: Tensor, read: Tensor) -> Tensor:
        """What the next tokens say of each token [B, L, V].

        Args:
            table: embeddings [V, d].
            previous, tokens: (mean) embeddings [B, L, d] of the tokens before, and of the tokens.
            read: bool [L, REACH]: whether a slot is told by the first after it, the second, ...
        """
        assert self.next_evidence is not None
        known = tokens - self.unigram.softmax(dim=-1) @ table
        after = _following(known, 0.0).masked_fill(~read[..., None], 0.0)
        told: Tensor = self.next_evidence(previous, after, table)
        return told

    def between(self, clean: Tensor, tokens: Tensor) -> Tensor:
        """Logits [B, C, V] of tokens [B, C] between those before, whose law `clean` [B, C, V] is as it is, and after.

        Of every `REACH` neighbours the first is told by all that come after it, the last by the farthest alone.
        """
        model, place = self.autoregressive, torch.arange(tokens.shape[1], device=tokens.device)
        table, near = model.embeddings(), torch.arange(REACH, device=tokens.device) < place[:, None] % REACH
        return clean.detach() + self.told(table[:-1], table[model.shifted(tokens)[:, :-1]], table[tokens], ~near)

    def slots(self, noisy: Noisy) -> tuple[Tensor, Tensor]:
        """Inputs of the noisy stream [B, L, width], and what each slot's own noisy embedding and the tokens after it
        say of its token [B, L, V]."""
        model = self.autoregressive
        table = model.embeddings()
        own = evidence(noisy.z, noisy.gamma, table[:-1])
        guess = noisy.guess if noisy.guess is not None else self._alone(own, table[:-1])
        known = noisy.known[..., None]
        clean = table[noisy.tokens]
        believed = torch.where(known, clean, guess)
        first = table[noisy.before] if noisy.has_prefix else torch.zeros_like(believed)
        previous = torch.where(noisy.begins[:, None], first, believed.roll(1, dims=1))
        inputs = model.embed(previous) + self.from_noise(noisy.z) + self.from_gamma(_fourier(noisy.gamma))
        inputs = inputs + self.from_known(torch.where(known, clean, 0.0))
        if noisy.guess is not None:
            inputs = inputs + self.from_guess(noisy.guess)
        said = own if self.config.process.output_prior else torch.zeros_like(own)
        if self.next_evidence is not None:  # within a block: nobody comes after its last slot
            block = noisy.begins.cumsum(0)
            after = _following(block[None, :, None], -1)[0, :, :, 0]
            # A guess of the next ones was made by what this slot is, too; their own embeddings alone were not.
            sure = believed if noisy.guess is None else torch.where(known, clean, self._alone(own, table[:-1]))
            said = said + self.told(table[:-1], previous, sure, after == block[:, None])
        return inputs, said

    def _alone(self, own: Tensor, table: Tensor) -> Tensor:
        """Mean embeddings [B, L, d] by the evidence of each slot's own noisy embedding [B, L, V] and nothing else."""
        return (own + self.unigram).softmax(dim=-1) @ table


def _following(values: Tensor, beyond: float) -> Tensor:
    """Of the `REACH` slots after each of values [B, L, d]: [B, L, REACH, d], `beyond` the last slot."""
    padded = F.pad(values, (0, 0, 0, REACH), value=beyond)
    return torch.stack([padded.narrow(1, ahead, values.shape[1]) for ahead in range(1, REACH + 1)], dim=2)


@lru_cache(maxsize=64)
def _two_stream_mask(length: int, block: int, device: torch.device) -> Tensor:
    """Who looks at whom, bool [C + L, C + L]: clean slots at earlier clean ones, a block at its prefix and itself."""
    read = length - block
    clean, noisy = torch.arange(read, device=device), torch.arange(length, device=device)
    mask = torch.zeros(read + length, read + length, dtype=torch.bool, device=device)
    mask[:read, :read] = clean[:, None] >= clean
    mask[read:, :read] = clean < (noisy // block * block)[:, None]  # clean slot i holds token i - 1
    mask[read:, read:] = (noisy // block)[:, None] == noisy // block
    return mask


def _fourier(gamma: Tensor) -> Tensor:
    """Sines and cosines of gamma [B, L] at 32 frequencies: [B, L, 64]."""
    frequencies = torch.exp(torch.linspace(math.log(0.05), math.log(3.0), GAMMA_FEATURES // 2, device=gamma.device))
    angles = gamma[..., None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
