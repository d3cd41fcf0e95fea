"""What the training loop trains: one objective for each model of text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.processes import parts as parallel
from core.processes.world import SINGLE_PROCESS, World
from core.randomness import DataOrder, Draws, Noise, generator_of
from core.text import data, generation, masked, original
from core.text.autoregressive import Autoregressive, generate, parameter_groups, unigram_log_probs
from core.text.bound import TokenPosterior
from core.text.config import TextModel
from core.text.data import TextSet
from core.text.denoiser import Diffusion, Noisy
from core.text.given import endpoint_slots, hidden_spans
from core.text.masked import Masked, masked_loss
from core.text.original import Original
from core.text.schedule import diffuse, evidence, lane_tilt, tilted
from core.training.capacity import build_within_memory
from core.training.objective import Batch, Objective
from core.training.optimizers import ParameterGroup
from core.transfer import to_device

VALIDATION_WINDOWS, PREVIEW_TEXTS, PREVIEW_STEPS = 16, 4, 16  # looks count towards the budget of minutes


def build(objective: str, vocabulary: int, config: TextModel, unigram: Tensor | None = None) -> nn.Module:
    """The untrained network of an objective; `unigram` log-probabilities [V] are where its output bias starts."""
    start = torch.full((vocabulary,), 0.0) if unigram is None else unigram
    if objective == "original":
        return build_within_memory(lambda: Original(vocabulary, config), "model")
    kinds: dict[str, type[Autoregressive | Masked | Diffusion]] = {
        "autoregressive": Autoregressive,
        "masked": Masked,
        "diffusion": Diffusion,
    }
    return build_within_memory(lambda: kinds[objective](vocabulary, config, start), "model")


class _TextObjective:
    """What they share: examples are the windows that begin at every token of the training split."""

    def __init__(self, name: str, config: TextModel, texts: TextSet, seed: int) -> None:
        self.config, self.texts, self.seed = config, texts, seed
        for split in ("train", "validation"):
            data.require_context(texts.tokens[split], config.context, f"{split} split")
        self.tokens = texts.tokens["train"]
        self.unigram = unigram_log_probs(self.tokens, texts.tokenizer.size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = build(name, texts.tokenizer.size, config, self.unigram)
        self.held_out = data.held_out(texts.tokens["validation"], config.context, VALIDATION_WINDOWS)

    def order(self, seed: int) -> DataOrder:
        return DataOrder(len(self.tokens) - self.config.context + 1, seed)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        return parameter_groups(self.model)

    def _windows(self, indices: Tensor) -> Tensor:
        return data.windows(self.tokens, indices, self.config.context)

    def _noise(self, device: torch.device) -> Noise:
        """That of a preview, the same at every look."""
        return Noise.of(self.seed, "preview", rows=PREVIEW_TEXTS, device=device)

    def _text(self, ids: Tensor) -> tuple[str, bytes]:
        texts = [self.texts.tokenizer.decode(row) for row in ids.cpu().tolist()]
        return ".txt", "\n\n--------\n\n".join(texts).encode()


class AutoregressiveObjective(_TextObjective):
    """Cross-entropy of the next token."""

    def __init__(self, config: TextModel, texts: TextSet, seed: int) -> None:
        super().__init__("autoregressive", config, texts, seed)

    def batch(self, indices: Tensor, draws: Draws) -> Batch:
        return Batch((to_device(self._windows(indices), draws.device),))

    def loss(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        (tokens,) = batch.tensors
        return token_losses(model(tokens[:, :-1]), tokens).mean(dim=1)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        tokens = self.held_out.to(next(model.parameters()).device)
        return {"loss": float(token_losses(model(tokens[:, :-1]), tokens).mean())}

    def preview(self, model: nn.Module) -> tuple[str, bytes] | None:
        assert isinstance(model, Autoregressive)
        empty = torch.zeros(PREVIEW_TEXTS, 0, dtype=torch.long, device=model.directions.device)
        return self._text(generate(model, empty, self.config.context, self._noise(model.directions.device)))


class DiffusionObjective(_TextObjective):
    """Cross-entropy of the clean token at noised slots, and of the next token on the clean stream.

    Each batch is cut into blocks of one of the configured lengths; every block has its own noise level. Of a share of
    batches (`endpoints`) each token is given or lost instead: masked diffusion in the longest blocks, and infilling.
    """

    def __init__(self, config: TextModel, texts: TextSet, seed: int) -> None:
        super().__init__("diffusion", config, texts, seed)

    def batch(self, indices: Tensor, draws: Draws) -> Batch:
        process, context = self.config.process, self.config.context
        pick = torch.rand(4, generator=draws.generator)  # one for the whole global batch
        block, lanes = process.shapes[int(pick[0] * len(process.blocks))]
        has_prefix, guesses = bool(pick[1] >= process.prefix_dropout), bool(pick[2] < process.self_conditioning)
        ends = process.endpoints > 0 and bool(torch.rand((), generator=draws.generator) < process.endpoints)
        low, high = (torch.tensor(lane_tilt(value, block, lanes)) for value in process.tilt)
        tilt = torch.lerp(low, high, pick[3]).double()
        if ends:
            block = max(process.blocks)  # in which gaps are filled
            known, u = endpoint_slots(draws, context // block, block), torch.ones(len(indices), context // block)
        else:  # stratified over the blocks of all rows
            u = (draws.stratified()[:, None] + torch.arange(context // block) / (context // block)) % 1
            known = hidden_spans(draws, context // block, block, process.known)
        times = tilted(u, block, tilt, lanes).flatten(1)  # along each lane
        noise = draws.normal(context, process.embedding)
        given = (to_device(values, draws.device) for values in (self._windows(indices), known, times))
        return Batch((*given, noise), (block, has_prefix, guesses, ends))

    def loss(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        process, network = self.config.process, self.model
        assert isinstance(network, Diffusion)
        tokens, known, times, noise = batch.tensors  # [b, L] three times, [b, L, d]
        block, has_prefix, guesses, ends = batch.kind
        assert isinstance(block, int)
        gamma = torch.full(known.shape, process.gamma_max, device=known.device) if ends else network.warp.gamma(times)
        noisy = noisy_windows(network, tokens, gamma, noise, known, block, has_prefix=bool(has_prefix))
        if guesses:  # self-conditioning (Chen et al. 2023)
            with torch.no_grad():
                noisy = replace(noisy, guess=network.mean(model(noisy, block)[0]))
        denoised, clean = model(noisy, block)  # logits [b, L, V], and of the clean stream's next tokens
        losses = token_losses(denoised, tokens)
        if not ends:  # the warp is of texts that get out of noise together
            network.warp.observe(gamma, losses, ~known)
        loss = (losses * ~known).sum(dim=1) / (~known).sum(dim=1).clamp_min(1)
        if clean is not None and process.autoregressive_weight:
            read = tokens[:, : clean.shape[1]]
            loss = loss + process.autoregressive_weight * token_losses(clean, read).mean(dim=1)
            if process.next_evidence:  # of all tokens, where the noisy stream has few before known ones at a time
                between = token_losses(network.between(clean, read), read)
                loss = loss + process.autoregressive_weight * between.mean(dim=1)
        return loss

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Losses at fixed noise levels and noise, with the loss of the exact posterior that knows no context."""
        assert isinstance(model, Diffusion)
        rows = gamma_losses(model, self.held_out, self.config.block(None))
        losses = {f"loss/{row['gamma']:g}": row["loss"] for row in rows}
        without = {f"no_context/{row['gamma']:g}": row["no_context"] for row in rows}
        return {"loss": sum(losses.values()) / len(losses), **losses, **without}

    def preview(self, model: nn.Module) -> tuple[str, bytes] | None:
        assert isinstance(model, Diffusion)
        empty = torch.zeros(PREVIEW_TEXTS, 0, dtype=torch.long, device=model.unigram.device)
        settings, noise = generation.Settings(steps=PREVIEW_STEPS), self._noise(empty.device)
        block = self.config.block(None)
        return self._text(generation.generate(model, empty, self.config.context, block, settings, noise))


class MaskedObjective(_TextObjective):
    """The bound of masked discrete diffusion, one share of masks for each row."""

    def __init__(self, config: TextModel, texts: TextSet, seed: int) -> None:
        super().__init__("masked", config, texts, seed)

    def batch(self, indices: Tensor, draws: Draws) -> Batch:
        share = 0.01 + 0.99 * draws.stratified()
        masks = draws.uniform(self.config.context) < share[:, None]
        return Batch(tuple(to_device(values, draws.device) for values in (self._windows(indices), masks, share)))

    def loss(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        tokens, masks, share = batch.tensors
        return masked_loss(model(tokens.masked_fill(masks, self.texts.tokenizer.size)), tokens, masks, share)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        tokens, draws = self.held_out.to(device), generator_of("validation")
        share = (0.5 + torch.arange(len(tokens))) / len(tokens)
        masks = (torch.rand(tokens.shape, generator=draws) < share[:, None]).to(device)
        losses = masked_loss(
            model(tokens.masked_fill(masks, self.texts.tokenizer.size)), tokens, masks, share.to(device)
        )
        return {"loss": float(losses.mean())}

    def preview(self, model: nn.Module) -> tuple[str, bytes] | None:
        assert isinstance(model, Masked)
        noise = self._noise(model.directions.device)
        return self._text(masked.generate(model, self.config.context, PREVIEW_STEPS, noise))


class OriginalObjective(_TextObjective):
    """Noise prediction on small embeddings, without positions: what this project began with."""

    def __init__(self, config: TextModel, texts: TextSet, seed: int) -> None:
        super().__init__("original", config, texts, seed)

    def batch(self, indices: Tensor, draws: Draws) -> Batch:
        step = draws.integers(original.STEPS)
        given = (to_device(values, draws.device) for values in (self._windows(indices), step))
        return Batch((*given, draws.normal(self.config.context, self.config.transformer.width)))

    def loss(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        assert isinstance(self.model, Original)
        return self.model.loss(*batch.tensors)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        assert isinstance(model, Original)
        device, draws = model.kept.device, generator_of("validation")
        step = torch.linspace(0, original.STEPS - 1, len(self.held_out)).long()
        noise = torch.randn(*self.held_out.shape, self.config.transformer.width, generator=draws)
        return {"loss": float(model.loss(self.held_out.to(device), step.to(device), noise.to(device)).mean())}

    def preview(self, model: nn.Module) -> tuple[str, bytes] | None:
        assert isinstance(model, Original)
        return self._text(original.generate(model, self.config.context, 100, self._noise(model.kept.device)))


OBJECTIVES: dict[str, Callable[[TextModel, TextSet, int], Objective]] = {
    "diffusion": DiffusionObjective,
    "autoregressive": AutoregressiveObjective,
    "masked": MaskedObjective,
    "original": OriginalObjective,
}


def token_losses(logits: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy [B, L] in nats of tokens [B, L], in fp32."""
    return F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)


def noisy_windows(
    network: Diffusion,
    tokens: Tensor,
    gamma: Tensor,
    noise: Tensor,
    known: Tensor,
    block: int,
    *,
    has_prefix: bool = True,
    guess: Tensor | None = None,
) -> Noisy:
    """The noisy stream of whole contexts tokens [B, L] at gamma [B, L], cut into blocks."""
    z = diffuse(network.embeddings()[tokens], gamma, noise)
    before = network.autoregressive.shifted(tokens)[:, :-1]
    begins = torch.arange(tokens.shape[1], device=tokens.device) % block == 0
    return Noisy(z, gamma, tokens, known, before, begins, has_prefix, guess)


def block_posterior(network: Diffusion, block: int) -> TokenPosterior:
    """Logits [B, L, V] of clean tokens in blocks, each after the clean text before it, for the bounds."""

    def logits(tokens: Tensor, z: Tensor, gamma: Tensor) -> Tensor:
        known = torch.zeros_like(tokens, dtype=torch.bool)
        noisy = noisy_windows(network, tokens, gamma, torch.zeros_like(z), known, block)
        denoised: Tensor = network(replace(noisy, z=z), block)[0]
        return denoised

    return logits


@torch.no_grad()
def gamma_losses(
    model: Diffusion, windows: Tensor, block: int, bins: int = 11, world: World = SINGLE_PROCESS
) -> list[dict[str, float]]:
    """Nats per token at noise levels that all slots share, and those of the exact posterior without context."""
    process = model.config.process
    tokens = windows.to(model.unigram.device)
    known = torch.zeros_like(tokens, dtype=torch.bool)
    noise = torch.randn(*tokens.shape, process.embedding, generator=generator_of("validation")).to(tokens.device)
    levels = torch.linspace(process.gamma_min, process.gamma_max, bins).tolist()

    def row(index: int) -> dict[str, float]:
        gamma = torch.full(tokens.shape, levels[index], device=tokens.device)
        noisy = noisy_windows(model, tokens, gamma, noise, known, block)
        own = model.unigram + evidence(noisy.z, gamma, model.embeddings())
        return {
            "gamma": levels[index],
            "loss": float(token_losses(model(noisy, block)[0], tokens).mean()),
            "no_context": float(token_losses(own, tokens).mean()),
        }

    return parallel.values(row, bins, world)
