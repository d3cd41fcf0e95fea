"""The autoregressive model: the control of equal size, the other half of fusion, and where diffusion starts from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.randomness import Noise
from core.text import token_files
from core.text.transformer import Cache, TokenTransformer
from core.training.optimizers import ParameterGroup


class NextToken(Protocol):
    """Anything that gives the law of each token after those before it."""

    def __call__(self, ids: Tensor) -> Tensor:
        """Logits [B, L + 1, V] for ids [B, L]: entry i is the law of token i given the tokens before it."""


class Autoregressive(TokenTransformer):
    """A causal transformer; the last row of its table is a learned start token."""

    def shifted(self, ids: Tensor) -> Tensor:
        """The start token followed by ids [B, L]: [B, L + 1]."""
        return F.pad(ids, (1, 0), value=self.vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [B, L + 1, V] for ids [B, L]: entry i is the law of token i given the tokens before it."""
        inputs = self.embed(self.embeddings()[self.shifted(ids)])
        positions = torch.arange(inputs.shape[1], device=ids.device)
        logits: Tensor = self.head(self.transformer(inputs, positions, causal=True))
        return logits

    def read(self, ids: Tensor, start: int, past: Cache | None) -> tuple[Tensor, Cache]:
        """Reads inputs ids [B, L] (start token included) at positions from `start` on, after `past`.

        Returns logits [B, L, V] of the token after each, and the cache of all read so far.
        """
        length = ids.shape[1]
        positions = torch.arange(start, start + length, device=ids.device)
        mask = None  # a single position looks at all before it
        if length > 1:
            mask = torch.ones(length, start + length, dtype=torch.bool, device=ids.device).tril(start)
        cache: Cache = []
        features = self.transformer(self.embed(self.embeddings()[ids]), positions, mask=mask, past=past, keep=cache)
        return self.head(features), cache


def parameter_groups(model: nn.Module) -> list[ParameterGroup]:
    """Embedding directions move faster; matrices of the transformer may go to Muon; only matrices decay."""
    directions, hidden, other, vectors = [], [], [], []
    for name, parameter in model.named_parameters():
        if name.endswith("directions"):
            directions.append(parameter)
        elif parameter.ndim < 2 or name.endswith("gain"):
            vectors.append(parameter)
        elif ".layers." in name:
            hidden.append(parameter)
        else:
            other.append(parameter)
    return [
        ParameterGroup(hidden, weight_decay=True, matrices=True),
        ParameterGroup(other, weight_decay=True),
        ParameterGroup(directions, scale=3.0),
        ParameterGroup(vectors),
    ]


@torch.no_grad()
def generate(model: Autoregressive, prompt: Tensor, length: int, noise: Noise, temperature: float = 1.0) -> Tensor:
    """Draws tokens after a prompt [B, P] until there are `length`: int64 [B, length].

    Beyond the context the model goes on from the second half of what it has seen.
    """
    ids, cache, read = prompt, None, 0
    inputs, offset = model.shifted(prompt)[:, -model.context :], 0
    while ids.shape[1] < length:
        if read + inputs.shape[1] > model.context:
            offset = max(0, ids.shape[1] - model.context // 2)
            inputs, cache, read = ids[:, offset:], None, 0
        logits, cache = model.read(inputs, read, cache)
        read += inputs.shape[1]
        inputs = draw(logits[:, -1] / temperature, noise)[:, None]
        ids = torch.cat((ids, inputs), dim=1)
    return ids[:, :length]


def draw(logits: Tensor, noise: Noise) -> Tensor:
    """One token from each law [B, ..., V], by the Gumbel maximum."""
    uniform = noise.uniform(*logits.shape[1:]).clamp_min(1e-20)
    return (logits - (-uniform.log()).log()).argmax(dim=-1)


def unigram_log_probs(tokens: Tensor, vocabulary: int) -> Tensor:
    """Log-probabilities [V] of single tokens, with half a count added to each."""
    counts = token_files.counts(tokens, vocabulary).double() + 0.5
    return (counts / counts.sum()).log().float()


def bits_per_character(nats_per_token: float, characters_per_token: float) -> float:
    """Nats per token as bits per character."""
    return nats_per_token / characters_per_token / math.log(2)


def total_log_prob(model: NextToken, ids: Tensor) -> Tensor:
    """Log-probability [B] of whole sequences ids [B, L]."""
    logs: Sequence[Tensor] | Tensor = model(ids)[:, :-1].log_softmax(dim=-1)
    assert isinstance(logs, Tensor)
    return logs.gather(-1, ids[..., None])[..., 0].sum(dim=1)
