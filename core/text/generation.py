"""Text out of noise: block after block, after a prompt, or into a gap; guided by what was given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.randomness import Noise
from core.text.denoiser import Diffusion, Noisy
from core.text.reverse_steps import STEPS
from core.text.schedule import NoisePath, evidence
from core.text.transformer import Cache

Watch = Callable[[float, Tensor], None]  # mean gamma of a block, and the most probable tokens [B, L] of the text


@dataclass(frozen=True)
class Settings:
    """How a block is denoised."""

    sampler: str = "ddpm"
    steps: int = 32
    temperature: float = 1.0
    guidance: float = 1.0
    tilt: float | None = None  # None: the largest that was trained


def sampled_path(model: Diffusion, block: int, tilt: float | None = None) -> NoisePath:
    """The noise levels that a block of `block` slots goes through; `tilt` None is the largest that was trained."""
    return NoisePath(model.warp, block, model.config.process.tilt[1] if tilt is None else tilt)


class Prefix:
    """Clean text [B, P] that blocks follow, read once and kept as keys and values.

    Beyond the model's context it goes on from the second half of what it has.
    """

    def __init__(self, model: Diffusion, ids: Tensor, room: int) -> None:
        self.model, self.ids = model, ids[:, :0]
        self.cache: Cache | None = None
        self.length = 0  # inputs read: the start token and the ids, or the last ids alone
        self.law = torch.empty(0)  # logits [B, V] of the next token by the clean stream
        self.extend(ids, room)

    def extend(self, ids: Tensor, room: int) -> None:
        """Appends ids [B, L], leaving `room` slots after them within the context."""
        model = self.model.autoregressive
        self.ids = torch.cat((self.ids, ids), dim=1)
        inputs = ids if self.length else model.shifted(ids)
        if self.length + inputs.shape[1] + room > model.context + 1:
            kept = max(1, (model.context - room) // 2)
            inputs, self.cache, self.length = self.ids[:, -kept:], None, 0
        if not inputs.shape[1]:
            return
        laws, self.cache = model.read(inputs, self.length, self.cache)
        self.law, self.length = laws[:, -1], self.length + inputs.shape[1]

    @property
    def before(self) -> Tensor:
        """The token [B] before the next block; the start token if there is none."""
        if self.ids.shape[1]:
            return self.ids[:, -1]
        return torch.full((len(self.ids),), self.model.vocabulary, device=self.ids.device)

    @property
    def past(self) -> Cache | None:
        """Keys and values that a block looks at: all but the last input, which its first slot carries itself."""
        return None if self.cache is None else [(key[:, :, :-1], value[:, :, :-1]) for key, value in self.cache]

    @property
    def start(self) -> int:
        """Position of the next block's first slot: that of the last input, whose successor it predicts."""
        return self.length - 1


def block_denoiser(
    model: Diffusion, prefix: Prefix, tokens: Tensor, known: Tensor, guidance: float
) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """The function (z [B, L, d], gamma [L], guess) -> logits [B, L, V] of one block.

    Args:
        tokens, known: context inside the block [B, L], as for infill.
        guidance: w of (1 - w) x unconditional + w x conditional logits (Ho & Salimans 2022), where unconditional is
            without the prefix. 1 is none.
    """
    begins = torch.arange(tokens.shape[1], device=tokens.device) == 0
    before = prefix.before[:, None].expand(tokens.shape)

    def denoise(z: Tensor, gamma: Tensor, guess: Tensor | None) -> Tensor:
        noisy = Noisy(z, gamma.expand(tokens.shape), tokens, known, before, begins, True, guess)
        logits = model.denoise(noisy, prefix.start, prefix.past)
        if guidance == 1:
            return logits
        alone = Noisy(z, gamma.expand(tokens.shape), tokens, torch.zeros_like(known), before, begins, False, guess)
        return torch.lerp(model.denoise(alone, 0, None), logits, guidance)

    return denoise


def carried_over(
    model: Diffusion,
    logits: Tensor,
    z: Tensor,
    gamma: Tensor,
    lower: Tensor,
    after: Tensor,
    temperature: Tensor | float,
) -> Tensor:
    """What a step's logits say once z has become `lower`: mean embeddings [B, L, d], by Bayes' rule, at no evaluation.

    The guess that the next evaluation is given. Training guesses from the very z that it denoises; the means of the
    step before do not know what a large step has decided since.

    Args:
        logits: [B, L, V], divided by `temperature`.
        z, lower: noisy embeddings [B, L, d] before and after the step, at noise levels `gamma` and `after` [L].
    """
    table = model.embeddings()
    told = evidence(lower, after, table) - evidence(z, gamma, table)
    return model.mean(logits + told / temperature)


@torch.no_grad()
def denoise_block(
    model: Diffusion,
    prefix: Prefix,
    tokens: Tensor,
    known: Tensor,
    settings: Settings,
    source: Noise,
    watch: Watch | None = None,
) -> Tensor:
    """Logits [B, L, V] of a block after all its steps, given `tokens` [B, L] where `known`."""
    denoise = block_denoiser(model, prefix, tokens, known, settings.guidance)
    step = STEPS[settings.sampler]
    grid = sampled_path(model, tokens.shape[1], settings.tilt).grid(settings.steps)
    shape = (tokens.shape[1], model.config.process.embedding)

    z, guess = source.normal(*shape), None
    logits = torch.empty(0)
    for index in range(settings.steps):
        logits = denoise(z, grid[index], guess) / settings.temperature
        if watch is not None:
            watch(float(grid[index].mean()), torch.where(known, tokens, logits.argmax(dim=-1)))
        if index + 1 < settings.steps:
            gamma, after = grid[index], grid[index + 1]
            lower = step(z, model.mean(logits), gamma[:, None], after[:, None], source.normal(*shape))
            guess = carried_over(model, logits, z, gamma, lower, after, settings.temperature)
            z = lower
    return logits


@torch.no_grad()
def generate(
    model: Diffusion,
    prompt: Tensor,
    length: int,
    block: int,
    settings: Settings,
    source: Noise,
    watch: Watch | None = None,
) -> Tensor:
    """Tokens after a prompt [B, P] until there are `length`, `block` at a time: int64 [B, length]."""
    prefix = Prefix(model, prompt, block)
    while prefix.ids.shape[1] < length:
        size = min(block, length - prefix.ids.shape[1])
        blank = torch.zeros(len(prompt), size, dtype=torch.long, device=prompt.device)
        done = prefix.ids
        seen = None if watch is None else _with_prefix(watch, done)
        logits = denoise_block(model, prefix, blank, torch.zeros_like(blank, dtype=torch.bool), settings, source, seen)
        prefix.extend(logits.argmax(dim=-1), block)
    return prefix.ids[:, :length]


@torch.no_grad()
def fill(
    model: Diffusion,
    left: Tensor,
    gap: int,
    right: Tensor,
    settings: Settings,
    source: Noise,
    watch: Watch | None = None,
) -> Tensor:
    """`gap` tokens [B, gap] between left [B, P] and right [B, Q]; both are given as clean context."""
    size = gap + right.shape[1]
    prefix = Prefix(model, left, size)
    tokens = torch.cat((torch.zeros(len(left), gap, dtype=torch.long, device=left.device), right), dim=1)
    known = (torch.arange(size, device=left.device) >= gap).expand(tokens.shape)
    seen = None if watch is None else _with_prefix(watch, left)
    return denoise_block(model, prefix, tokens, known, settings, source, seen).argmax(dim=-1)[:, :gap]


def _with_prefix(watch: Watch, done: Tensor) -> Watch:
    return lambda gamma, tokens: watch(gamma, torch.cat((done, tokens), dim=1))
