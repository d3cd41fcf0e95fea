"""The autoregressive model: the control of equal size, the other half of fusion, and where diffusion starts from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.randomness import Noise, uniform
from core.text import token_files
from core.text.transformer import Cache, TokenTransformer
from core.training.graphs import worthwhile
from core.training.objective import Batch
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

    def features(self, ids: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """Features [B, L, D] of inputs ids [B, L] (start token included) at the `positions` [L] that `cache` has for
        them, which takes them in."""
        mask = cache.seen(positions)
        found: Tensor = self.transformer(self.embed(self.embeddings()[ids]), positions, mask=mask, cache=cache)
        return found

    def read(self, ids: Tensor, cache: Cache) -> Tensor:
        """Logits [B, L, V] of the token after each of the next inputs ids [B, L], start token included."""
        features = self.features(ids, cache.place(ids.shape[1]), cache)
        cache.length += ids.shape[1]
        logits: Tensor = self.head(features)
        return logits


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
    graphs = worthwhile(prompt.device, length - prompt.shape[1])
    cache = Cache(model.context, prompt.device, fixed=graphs.on)

    def drawn(batch: Batch) -> Tensor:
        ids, positions, keys = batch.tensors
        laws = model.head(model.features(ids, positions, cache)[:, -1:])
        return chosen(laws[:, -1] / temperature, uniform(keys, model.vocabulary))[:, None]

    tokens, inputs = [prompt], model.shifted(prompt)[:, -model.context :]
    for keys in noise.keys(length - prompt.shape[1]):
        if cache.length + inputs.shape[1] > model.context:
            seen = torch.cat(tokens, dim=1)
            inputs, cache.length = seen[:, max(0, seen.shape[1] - model.context // 2) :], 0
        batch = Batch((inputs, cache.place(inputs.shape[1]), keys))
        cache.length += inputs.shape[1]
        inputs = graphs(drawn, batch)
        tokens.append(inputs)
    return torch.cat(tokens, dim=1)[:, :length]


def draw(logits: Tensor, noise: Noise) -> Tensor:
    """One token from each law [B, ..., V]."""
    return chosen(logits, noise.uniform(*logits.shape[1:]))


def chosen(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token of each law [..., V] that uniform numbers [..., V] choose, by the Gumbel maximum."""
    uniform = uniform.clamp_min(1e-20)
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
