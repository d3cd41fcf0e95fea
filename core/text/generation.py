"""Text out of noise: block after block, after a prompt, or into a gap; guided by what was given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.randomness import Noise, normal, uniform
from core.text.autoregressive import chosen
from core.text.denoiser import Diffusion, Noisy
from core.text.reverse_steps import MIXTURE, STEPS
from core.text.schedule import NoisePath, evidence
from core.text.transformer import Cache
from core.training.graphs import worthwhile
from core.training.objective import Batch

Watch = Callable[[float, Tensor], None]  # mean gamma of a block, and the most probable tokens [B, L] of the text


@dataclass(frozen=True)
class Settings:
    """How a block is denoised."""

    sampler: str = MIXTURE
    steps: int = 16
    temperature: float = 1.0
    guidance: float = 1.0
    tilt: float | None = None  # None: the largest that was trained


def path_by_evaluations(
    model: Diffusion, evaluations: float, block: int | None = None, tilt: float | None = None
) -> tuple[NoisePath, int]:
    """The noise levels of a block, and its steps, with so many evaluations a token.

    `block` None: the first that was trained; with less than one evaluation a token, the longest in lanes.
    """
    in_lanes = [length for length, lanes in model.config.process.shapes if lanes > 1] if evaluations < 1 else []
    block = model.config.block(block or max(in_lanes, default=None))
    steps = max(1, round(evaluations * block))  # that all tokens of a block have in common
    return model.path(block, steps, tilt), steps


class Prefix:
    """Clean text [B, P] that blocks follow, read once and kept as keys and values.

    Beyond the model's context it goes on from the second half of what it has. The last token is not read yet: the first
    slot of the next block carries it.

    Args:
        model: whose text it is.
        ids: [B, P] to begin with.
        room: slots to leave after them within the context.
        evaluations: of blocks that are to come; many are recorded on a GPU.
    """

    def __init__(self, model: Diffusion, ids: Tensor, room: int, evaluations: int = 0) -> None:
        self.model, self.ids = model, ids[:, :0]
        self.graphs = worthwhile(ids.device, evaluations)
        self.cache = Cache(model.config.context, ids.device, fixed=self.graphs.on)
        self.before = torch.full((len(ids),), model.vocabulary, device=ids.device)  # the last token [B], or the start's
        self.extend(ids, room)

    def extend(self, ids: Tensor, room: int) -> None:
        """Appends ids [B, L], leaving `room` slots after them within the context."""
        self.ids, inputs = torch.cat((self.ids, ids), dim=1), torch.cat((self.before[:, None], ids), dim=1)
        if self.cache.length + inputs.shape[1] + room > self.model.config.context + 1:
            kept = max(1, (self.model.config.context - room) // 2)
            inputs, self.cache.length = self.ids[:, -kept:], 0
        self.before, new = inputs[:, -1], inputs.shape[1] - 1
        if new:
            self.graphs(self._read, Batch((inputs[:, :-1], self.cache.place(new)), ("read",)))
            self.cache.length += new

    def _read(self, batch: Batch) -> Tensor:
        ids, positions = batch.tensors
        return self.model.autoregressive.features(ids, positions, self.cache)


@dataclass(frozen=True)
class Block:
    """What slots [B, L] are denoised beside: the text before them, and tokens that are given among them.

    Args:
        tokens, known: ids, and where they are given, as for infill [B, L].
        before: the token [B] before the first slot.
        positions: of the slots [L].
    """

    tokens: Tensor
    known: Tensor
    before: Tensor
    positions: Tensor

    @classmethod
    def after(cls, prefix: Prefix, tokens: Tensor, known: Tensor) -> Block:
        """The next one after a text."""
        return cls(tokens, known, prefix.before, prefix.cache.place(tokens.shape[1]))

    def with_known(self, ids: Tensor) -> Tensor:
        """`ids` [B, L], or the tokens that are given."""
        return torch.where(self.known, self.tokens, ids)

    def logits(
        self, model: Diffusion, cache: Cache, guidance: float, z: Tensor, gamma: Tensor, guess: Tensor | None
    ) -> Tensor:
        """Logits [B, L, V] of z [B, L, d] at noise levels gamma [L].

        Args:
            guidance: w of (1 - w) x unconditional + w x conditional logits (Ho & Salimans 2022), where unconditional
                is without the prefix. 1 is none.
        """
        tokens, known, gamma = self.tokens, self.known, gamma.expand(self.tokens.shape)
        before, begins = self.before[:, None].expand(tokens.shape), self.positions == self.positions[:1]
        logits = model.denoise(Noisy(z, gamma, tokens, known, before, begins, True, guess), self.positions, cache)
        if guidance == 1:
            return logits
        alone = Noisy(z, gamma, tokens, torch.zeros_like(known), before, begins, False, guess)
        return torch.lerp(model.denoise(alone, self.positions - self.positions[:1]), logits, guidance)


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
    free: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The tokens [B, L] of a block after all its steps, given `tokens` where `known`, and their logits [B, L, V].

    The mixture draws them from their law, the other samplers take the most probable ones. All steps are for the first
    `free` slots, behind which all are known; None: for all slots.
    """
    block, cache = Block.after(prefix, tokens, known), prefix.cache
    slots = tokens.shape[1]
    grid = model.path(slots if free is None else free, settings.steps, settings.tilt).grid(settings.steps)
    levels = [] if watch is None else grid.mean(dim=1).tolist()
    grid = F.pad(grid, (0, slots - grid.shape[1]), value=model.config.process.gamma_max)
    shape = (slots, model.config.process.embedding)
    mixture = settings.sampler == MIXTURE

    def evaluated(batch: Batch) -> tuple[Tensor, ...]:
        """The most probable tokens if watched, z, and the guess for the next step; at last tokens and logits."""
        _, watched, guessed, moves = batch.kind
        within, (z, gamma, *more) = Block(*batch.tensors[:4]), batch.tensors[4:]
        guess = more.pop() if guessed else None
        logits = within.logits(model, cache, settings.guidance, z, gamma, guess) / settings.temperature
        drawn = chosen(logits, uniform(more.pop(), *logits.shape[1:])) if mixture else None
        if not moves:
            return within.with_known(logits.argmax(dim=-1) if drawn is None else drawn), logits
        seen = (within.with_known(logits.argmax(dim=-1)),) if watched else ()
        clean = model.mean(logits) if drawn is None else model.embeddings()[drawn]
        after, fresh = more
        lower = STEPS[settings.sampler](z, clean, gamma[:, None], after[:, None], normal(fresh, *shape))
        if mixture:  # the bounds are of a chain that hands nothing else on
            return *seen, lower
        return *seen, lower, carried_over(model, logits, z, gamma, lower, after, settings.temperature)

    given = (block.tokens, block.known, block.before, block.positions)
    keys = source.keys(settings.steps)
    picks = source.keys(settings.steps) if mixture else ()
    state: tuple[Tensor, ...] = (normal(keys[0], *shape),)  # z, then the guess too, and tokens and logits in the end
    for index in range(settings.steps):
        z, *guess = state
        moves = index + 1 < settings.steps
        more = ((grid[index + 1], keys[index + 1]) if moves else ()) + tuple(picks[index : index + 1])
        batch = Batch((*given, z, grid[index], *more, *guess), (settings, watch is not None, bool(guess), moves))
        state = prefix.graphs(evaluated, batch)
        if watch is not None:
            watch(levels[index], state[0])
            state = state[1:] if moves else state
    ids, logits = state
    return ids, logits


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
    blocks = -(-(length - prompt.shape[1]) // block)
    prefix = Prefix(model, prompt, block, blocks * settings.steps)
    while prefix.ids.shape[1] < length:
        size = min(block, length - prefix.ids.shape[1])
        blank = torch.zeros(len(prompt), size, dtype=torch.long, device=prompt.device)
        done = prefix.ids
        seen = None if watch is None else _with_prefix(watch, done)
        ids, _ = denoise_block(model, prefix, blank, torch.zeros_like(blank, dtype=torch.bool), settings, source, seen)
        prefix.extend(ids, block)
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
    prefix = Prefix(model, left, size, settings.steps)
    tokens = torch.cat((torch.zeros(len(left), gap, dtype=torch.long, device=left.device), right), dim=1)
    known = (torch.arange(size, device=left.device) >= gap).expand(tokens.shape)
    seen = None if watch is None else _with_prefix(watch, left)
    return denoise_block(model, prefix, tokens, known, settings, source, seen, gap)[0][:, :gap]


def _with_prefix(watch: Watch, done: Tensor) -> Watch:
    return lambda gamma, tokens: watch(gamma, torch.cat((done, tokens), dim=1))
