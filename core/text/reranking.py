"""What an autoregressive model alone makes of the text after a gap: its drafts, reranked by how that text follows.

K drafts come from p(x | left), and one of them is drawn in proportion to its weight r(x) = p(right | left, x)
(importance resampling, Rubin 1987). What is drawn has the law

    q(x) = p(x | left) E[K r(x) / (r(x) + r(x_2) + ... + r(x_K))]        x_2 ... x_K drafts

With K = 1 it is the model's own p(x | left), and with more and more drafts its p(x | left, right). By Jensen

    -log q(x) <= E[-log p(x | left) - log r(x) + log((r(x) + r(x_2) + ... + r(x_K)) / K)]
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core.randomness import Noise
from core.text.autoregressive import Autoregressive, draw
from core.text.transformer import Cache


@torch.no_grad()
def surprise(model: Autoregressive, left: Tensor, middle: Tensor, right: Tensor, noise: Noise) -> tuple[float, float]:
    """Nats of middle [G] after left [P]: by the model that reads on, and the bound of its drafts reranked by right [Q].

    Drafts are the middle itself and one for each row of `noise`.
    The three together are at most the model's context.
    """
    laws, left_cache = model.read(model.shifted(left[None]), 0, None)
    others = _drafts(model, laws[:, -1], left_cache, len(middle), noise)
    before, after = log_probs(model, laws[:, -1], left_cache, torch.cat((middle[None], others)), right)
    own = -float(before[0])
    return own, own + float(after.logsumexp(0) - after[0]) - math.log(len(noise) + 1)


def log_probs(
    model: Autoregressive, law: Tensor, cache: Cache, middles: Tensor, right: Tensor
) -> tuple[Tensor, Tensor]:
    """log p(middle | left) and log p(right | left, middle) of each of middles [K, G]: float64 [K] and [K].

    Args:
        law: logits [1, V] of the token after the left side.
        cache: the left side as the model has read it, one row.
    """
    count, gap = middles.shape
    ids = torch.cat((middles, right.expand(count, -1)), dim=1)
    start = cache[0][0].shape[2]
    laws, _ = model.read(ids[:, :-1], start, _repeated(cache, count))
    all_laws = torch.cat((law.expand(count, -1)[:, None], laws), dim=1)
    each = all_laws.double().log_softmax(dim=-1).gather(-1, ids[..., None])[..., 0]
    return each[:, :gap].sum(dim=1), each[:, gap:].sum(dim=1)


def _drafts(model: Autoregressive, law: Tensor, cache: Cache, gap: int, noise: Noise) -> Tensor:
    """Continuations [K, gap], a row of `noise` each, of the text in `cache`; the next token has logits `law` [1, V]."""
    count = len(noise)
    ids = draw(law.expand(count, -1), noise)[:, None]
    read, cache = cache[0][0].shape[2], _repeated(cache, count)
    while count and ids.shape[1] < gap:
        laws, cache = model.read(ids[:, -1:], read, cache)
        read += 1
        ids = torch.cat((ids, draw(laws[:, -1], noise)[:, None]), dim=1)
    return ids if count else ids.new_zeros(0, gap)


def _repeated(cache: Cache, count: int) -> Cache:
    return [(key.expand(count, -1, -1, -1), value.expand(count, -1, -1, -1)) for key, value in cache]
