"""Other ways to model text on this project's backbone, for benchmarks/fair_text.py: block diffusion by masks, and
filling in the middle from left to right.

`BlockMasks` is BD3-LM (Arriola et al. 2025): masked diffusion of blocks after clean text. It is the diffusion model of
core/text with nothing but masks in its noisy stream (z = 0 says nothing of a token), so both have the same parameters
and the same start, an autoregressive model. Their search for a range of shares of masks is left out: shares are
uniform, stratified over the blocks of a batch.

`FillInTheMiddle` is an autoregressive model (Bavarian et al. 2022): of half of the windows the middle is moved to the
end, `left <gap> right <fill> middle`, gaps as long as those that this project's model is trained on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.randomness import Draws, Noise, generator_of
from core.text import autoregressive
from core.text.autoregressive import Autoregressive
from core.text.config import TextModel
from core.text.data import TextSet
from core.text.denoiser import Diffusion, Noisy
from core.text.generation import Prefix
from core.text.masked import Masked
from core.text.objective import AutoregressiveObjective, DiffusionObjective, noisy_windows, token_losses
from core.training.objective import Batch
from core.transfer import to_device

MaskedLogits = Callable[[Tensor, Tensor], Tensor]  # of tokens [B, L], given where masks [B, L] are not: [B, L, V]
LEAST = 0.01  # share of masks in training


def mask_logits(network: nn.Module, block: int) -> MaskedLogits:
    """What a network trained on masks says of tokens in blocks, each after the clean text before it."""

    def logits(tokens: Tensor, masks: Tensor) -> Tensor:
        if isinstance(network, Masked):
            return network(tokens.masked_fill(masks, network.vocabulary))
        assert isinstance(network, Diffusion)
        return network(_slots(network, tokens, masks, block), block)[0]

    return logits


def _slots(network: Diffusion, tokens: Tensor, masks: Tensor, block: int) -> Noisy:
    """The noisy stream with masks in the place of noise."""
    gamma = torch.full(tokens.shape, network.config.process.gamma_max, device=tokens.device)
    nothing = torch.zeros(*tokens.shape, network.config.process.embedding, device=tokens.device)
    noisy = noisy_windows(network, tokens, gamma, nothing, ~masks, block)
    return Noisy(nothing, gamma, tokens, ~masks, noisy.before, noisy.begins)


def block_losses(losses: Tensor, masks: Tensor, share: Tensor) -> Tensor:
    """The bound [B] in nats per token: losses [B, L] at masks, by the `share` of masks [B, blocks] of each block."""
    weight = 1 / share.repeat_interleave(losses.shape[1] // share.shape[1], dim=1)
    return (losses * masks * weight).mean(dim=1)


class BlockMasksObjective(DiffusionObjective):
    """The bound of masked diffusion in each block; `process.blocks` is one length."""

    def batch(self, indices: Tensor, draws: Draws) -> Batch:
        blocks = self.config.context // self.config.process.blocks[0]
        share = LEAST + (1 - LEAST) * (1 - (draws.stratified()[:, None] + torch.arange(blocks) / blocks) % 1)
        masks = draws.uniform(self.config.context) < share.repeat_interleave(self.config.process.blocks[0], dim=1)
        return Batch(tuple(to_device(values, draws.device) for values in (self._windows(indices), masks, share)))

    def loss(self, model: Callable[..., object], batch: Batch) -> Tensor:
        tokens, masks, share = batch.tensors
        assert isinstance(self.model, Diffusion)
        block = self.config.process.blocks[0]
        denoised = model(_slots(self.model, tokens, masks, block), block)[0]  # type: ignore[index]
        return block_losses(token_losses(denoised, tokens), masks, share)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        block = self.config.process.blocks[0]
        tokens = self.held_out.to(next(model.parameters()).device)
        return {"loss": float(mask_bound(mask_logits(model, block), tokens, block, 16, draws=2).mean())}

    def preview(self, model: nn.Module) -> tuple[str, bytes] | None:
        return None


@torch.no_grad()
def mask_bound(
    logits: MaskedLogits, tokens: Tensor, block: int, steps: int, draws: int = 8, seed: int = 0, rows: int = 32
) -> Tensor:
    """Nats per token [R] of windows [R, L], at most, if each block is written in `steps` steps of equal shares.

    A chain of that many steps has its shares on the grid 1/steps, 2/steps, .. 1 (Austin et al. 2021; with infinitely
    many it is MDLM's equation 10). A step that uncovers nothing needs no evaluation: see `mask_evaluations`.
    """
    blocks, total = tokens.shape[1] // block, torch.zeros(len(tokens), dtype=torch.float64)
    for draw in range(draws):
        generator = generator_of(seed, "mask bound", draw)
        places = torch.randperm(len(tokens) * blocks, generator=generator).view(len(tokens), blocks)
        u = (places + torch.rand(places.shape, generator=generator)) / places.numel()  # stratified over all blocks
        share = ((u * steps).long() + 1).clamp(max=steps) / steps
        masks = torch.rand(tokens.shape, generator=generator) < share.repeat_interleave(block, dim=1)
        for part in torch.arange(len(tokens)).split(rows):
            some, hidden = tokens[part.to(tokens.device)], masks[part].to(tokens.device)
            losses = token_losses(logits(some, hidden), some)
            total[part] += block_losses(losses, hidden, share[part].to(losses)).double().cpu()
    return total / draws


def mask_evaluations(block: int, steps: int) -> float:
    """Evaluations a token, in the mean, of `steps` steps a block: those in which a token is uncovered."""
    return steps * (1 - (1 - 1 / steps) ** block) / block


@torch.no_grad()
def generate_blocks(network: Diffusion, length: int, steps: int, noise: Noise, temperature: float = 1.0) -> Tensor:
    """Tokens [B, length] of a model of block masks, a row of `noise` each; each block is uncovered in `steps` steps."""
    count, block, device = len(noise), network.config.process.blocks[0], network.unigram.device
    prefix = Prefix(network, torch.zeros(count, 0, dtype=torch.long, device=device), block)
    gamma = torch.full((count, block), network.config.process.gamma_max, device=device)
    nothing = torch.zeros(count, block, network.config.process.embedding, device=device)
    begins = torch.arange(block, device=device) == 0
    while prefix.ids.shape[1] < length:
        tokens = torch.zeros(count, block, dtype=torch.long, device=device)
        known = torch.zeros_like(tokens, dtype=torch.bool)
        before = prefix.before[:, None].expand(tokens.shape)
        for step in range(steps, 0, -1):
            noisy = Noisy(nothing, gamma, tokens, known, before, begins)
            drawn = autoregressive.draw(network.denoise(noisy, prefix.start, prefix.past) / temperature, noise)
            reveal = ~known & (noise.uniform(block) < 1 / step)
            tokens, known = torch.where(reveal, drawn, tokens), known | reveal
        prefix.extend(tokens, block)
    return prefix.ids[:, :length]


class FillInTheMiddleObjective(AutoregressiveObjective):
    """Cross-entropy of the next token; half of the windows have their middle at the end."""

    def __init__(self, config: TextModel, texts: TextSet, seed: int) -> None:
        super().__init__(config, texts, seed)
        self.gap = texts.tokenizer.size  # <gap>; the id after it is <fill>
        unigram = F.pad(self.unigram, (0, 2), value=float(self.unigram.min()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = Autoregressive(
                self.gap + 2, config.model_copy(update={"context": config.context + 2}), unigram
            )

    def batch(self, indices: Tensor, draws: Draws) -> Batch:
        return Batch((to_device(self._moved(self._windows(indices), draws.uniform(3)), draws.device),))

    def _moved(self, tokens: Tensor, uniform: Tensor) -> Tensor:
        """Windows [b, L] with their middle, of places by `uniform` [b, 3], at the end: [b, L + 2]."""
        length, longest = tokens.shape[1], max(self.config.process.blocks)
        rows = []
        for row, (plain, size, place) in zip(tokens, uniform.tolist(), strict=True):
            gap = 0 if plain < 0.5 else 1 + int(size**2 * (longest - 1))  # short ones are more frequent, as in training
            start = length if gap == 0 else int(place * (length - gap + 1))
            rows.append(filling(row[:start], row[start + gap :], row[start : start + gap], self.gap))
        return torch.stack(rows)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        uniform = torch.rand(len(self.held_out), 3, generator=generator_of("validation"))
        tokens = self._moved(self.held_out, uniform).to(next(model.parameters()).device)
        return {"loss": float(token_losses(model(tokens[:, :-1]), tokens).mean())}

    def preview(self, model: nn.Module) -> tuple[str, bytes] | None:
        return None


def filling(left: Tensor, right: Tensor, middle: Tensor, gap: int) -> Tensor:
    """The ids [P + Q + G + 2] that have the middle last; `gap` is the first of the two marks."""
    marks = torch.tensor([[gap], [gap + 1]], device=left.device)
    return torch.cat((left, marks[0], right, marks[1], middle))


@torch.no_grad()
def filled_nats(model: Autoregressive, left: Tensor, middle: Tensor, right: Tensor) -> float:
    """Nats of middle [G] given left [P] and right [Q] by a model that fills in; marks are no tokens of a text."""
    gap = model.vocabulary - 2
    ids = filling(left, right, middle, gap)
    laws = model(ids[None, :-1])[0, -len(middle) :, :gap].log_softmax(dim=-1)
    return -float(laws.gather(-1, middle[:, None]).double().sum())


@torch.no_grad()
def masked_nats(model: Masked, left: Tensor, middle: Tensor, right: Tensor) -> float:
    """Nats of middle [G] given left [P] and right [Q] by a model of masks that fills the gap from left to right."""
    size, start = len(middle), len(left)
    ids = torch.cat((left, torch.full_like(middle, model.vocabulary), right)).repeat(size, 1)
    for done in range(size):
        ids[done, start : start + done] = middle[:done]
    laws = model(ids)[torch.arange(size), start + torch.arange(size)].log_softmax(dim=-1)
    return -float(laws.gather(-1, middle[:, None]).double().sum())


def plain_nats(model: Autoregressive, tokens: Tensor, size: int) -> Tensor:
    """Nats per token [R] of windows [R, L] read from left to right; ids from `size` on are marks, not text."""
    parts = [token_losses(model(part[:, :-1])[..., :size], part).mean(dim=1) for part in tokens.split(32)]
    return torch.cat(parts).double().cpu()
