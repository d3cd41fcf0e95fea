"""An autoregressive and a diffusion model together, four ways.

A  mix       log p = (1 - a) log p_AR(x_i | left) + a log p_D(x_i | left, right) - log Z
B  Bayes     log p = log p_AR(x_i | left) + w [log p_D(x_i | left, right) - log p_D(x_i | left)] - log Z
             The bracket is log p(right | x_i, left) up to a constant, so w = 1 is exact for exact models, where mixing
             counts the left context twice.
C  reweight  of K diffusion samples one is drawn with probability proportional to p_AR^lambda
D  verify    diffusion drafts a block, the autoregressive model accepts or redraws: the output law is exactly its own
             (Leviathan et al. 2023), whatever the draft
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.randomness import Noise
from core.text.autoregressive import NextToken, draw, total_log_prob
from core.text.denoiser import Diffusion
from core.text.generation import Block, Prefix, Settings, denoise_block


def mix(autoregressive: Tensor, diffusion: Tensor, alpha: float) -> Tensor:
    """(A) Normalised log-probabilities [..., V] of two laws given as log-probabilities or logits."""
    return torch.lerp(autoregressive.log_softmax(-1), diffusion.log_softmax(-1), alpha).log_softmax(dim=-1)


def bayes(autoregressive: Tensor, both_sides: Tensor, left_side: Tensor, weight: float) -> Tensor:
    """(B) Normalised log-probabilities [..., V]; the last two are of one diffusion model with and without the right."""
    told = both_sides.log_softmax(-1) - left_side.log_softmax(-1)
    return (autoregressive.log_softmax(-1) + weight * told).log_softmax(dim=-1)


@torch.no_grad()
def next_laws(model: Diffusion, left: Tensor, gap: int, right: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """Logits [B, V] of the token after left [B, P], with the text right [B, Q] after `gap` tokens given and without.

    All of the gap is noise at gamma_max: what diffusion knows of the token before any denoising.
    """
    size = gap + right.shape[1]
    blank = torch.zeros(len(left), gap, dtype=torch.long, device=left.device)
    tokens = torch.cat((blank, right), dim=1)
    known = (torch.arange(size, device=left.device) >= gap).expand(tokens.shape)
    prefix = Prefix(model, left, size)
    z = noise.normal(size, model.config.process.embedding)
    gamma = torch.full((size,), model.config.process.gamma_max, device=left.device)
    both, alone = (
        Block.after(prefix, tokens, given).logits(model, prefix.cache, 1.0, z, gamma, None)[:, 0]
        for given in (known, torch.zeros_like(known))
    )
    return both, alone


@torch.no_grad()
def middle_laws(
    autoregressive: NextToken, model: Diffusion, left: Tensor, middle: Tensor, right: Tensor, noise: Noise
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [B, G, V] of each true middle token [B, G] given those before it: AR, diffusion, diffusion without right.

    Likelihoods of held-out text, teacher-forced from left to right: no sampling, no judge.
    """
    length, gap = left.shape[1], middle.shape[1]
    own = autoregressive(torch.cat((left, middle), dim=1))[:, length : length + gap]
    pairs = [
        next_laws(model, torch.cat((left, middle[:, :done]), dim=1), gap - done, right, noise) for done in range(gap)
    ]
    return own, torch.stack([both for both, _ in pairs], dim=1), torch.stack([alone for _, alone in pairs], dim=1)


@torch.no_grad()
def fill(
    autoregressive: NextToken,
    model: Diffusion,
    left: Tensor,
    gap: int,
    right: Tensor,
    join: Callable[[Tensor, Tensor, Tensor], Tensor],
    noise: Noise,
) -> Tensor:
    """`gap` tokens [B, gap] after left [B, P], drawn one by one with the text right [B, Q] in view.

    `join` gives the law [B, V] of each from those of the autoregressive model, of diffusion with both sides and with
    the left one: (A) or (B).
    """
    ids = left
    for done in range(gap):
        own = autoregressive(ids)[:, -1]
        both, alone = next_laws(model, ids, gap - done, right, noise)
        ids = torch.cat((ids, draw(join(own, both, alone), noise)[:, None]), dim=1)
    return ids[:, left.shape[1] :]


@torch.no_grad()
def reweight(autoregressive: NextToken, candidates: Tensor, weight: float, noise: Noise) -> Tensor:
    """(C) For each row one of its diffusion samples `candidates` [B, K, L]: int64 [B, L]."""
    rows, count, length = candidates.shape
    scores = weight * total_log_prob(autoregressive, candidates.reshape(rows * count, length))
    return candidates[torch.arange(rows, device=candidates.device), draw(scores.view(rows, count), noise)]


@dataclass(frozen=True)
class Verified:
    """Tokens [B, L] and how many of the drafted ones were accepted, per verified block."""

    tokens: Tensor
    accepted_per_block: float


def accept(draft: Tensor, drafted: Tensor, target: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """Speculative acceptance of one block.

    Args:
        draft: log-probabilities [B, L, V] that tokens `drafted` [B, L] were drawn from, independent given the prefix.
        target: log-probabilities [B, L, V] of the model whose law the result has, given the drafted tokens before.

    Returns:
        tokens [B, L], of which the first `count` [B] are valid: the accepted ones and a redrawn one where one failed.
    """
    length = drafted.shape[1]
    index = drafted[..., None]
    ratio = (target.gather(-1, index) - draft.gather(-1, index))[..., 0]
    uniform = noise.uniform(length)
    passed = (uniform.log() < ratio).long().cumprod(dim=1)
    accepted = passed.sum(dim=1)
    failed = accepted.clamp(max=length - 1)
    rows = torch.arange(len(drafted), device=drafted.device)
    rest = (target[rows, failed].exp() - draft[rows, failed].exp()).clamp_min(0)
    # Rounding can leave nothing: then the laws agree and the target itself is right.
    rest = torch.where(rest.sum(dim=-1, keepdim=True) > 1e-9, rest, target[rows, failed].exp())
    redrawn = draw(rest.log(), noise)
    tokens = drafted.clone()
    tokens[rows, failed] = torch.where(accepted < length, redrawn, drafted[rows, failed])
    return tokens, (accepted + 1).clamp(max=length)


@torch.no_grad()
def verify(
    autoregressive: NextToken,
    model: Diffusion,
    prompt: Tensor,
    length: int,
    block: int,
    settings: Settings,
    noise: Noise,
) -> Verified:
    """(D) Tokens [B, length] with the autoregressive model's law, drafted `block` at a time.

    Rows go on one by one, because they accept different numbers.
    """
    finished, accepted, blocks = [], 0, 0
    for index, row in enumerate(prompt):
        ids, own = row[None], noise[index : index + 1]
        while ids.shape[1] < length:
            blank = torch.zeros(1, block, dtype=torch.long, device=ids.device)
            prefix = Prefix(model, ids, block)
            _, logits = denoise_block(model, prefix, blank, blank.bool(), settings, own)
            draft = logits.log_softmax(dim=-1)
            drafted = draw(draft, own)
            whole = torch.cat((ids, drafted), dim=1)
            target = autoregressive(whole)[:, ids.shape[1] : -1].log_softmax(dim=-1)
            tokens, count = accept(draft, drafted, target, own)
            ids = torch.cat((ids, tokens[:, : int(count[0])]), dim=1)
            accepted, blocks = accepted + int((tokens == drafted)[0, : int(count[0])].sum()), blocks + 1
        finished.append(ids[0, :length])
    return Verified(torch.stack(finished), accepted / max(1, blocks))
