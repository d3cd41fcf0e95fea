"""Bits per character of held-out text: bounds of diffusion and of masks, and the autoregressive model's likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.evaluation import ChainBits, Likelihood
from core.metrics import Metric, find
from core.processes import parts as parallel
from core.processes.world import World
from core.randomness import generator_of, seed_of
from core.text import data, ratios
from core.text.autoregressive import Autoregressive
from core.text.bound import chain_bound, path_bound
from core.text.config import TextEvaluate
from core.text.data import TextSet
from core.text.denoiser import Diffusion
from core.text.glossary import AUTOREGRESSIVE_BITS, BOUND, CHAIN, DIFFERENCE, GLOSSARY, INSIDE_BITS
from core.text.masked import Masked, masked_loss
from core.text.objective import block_posterior, token_losses
from core.text.ratios import Ratio
from core.text.sampling import Writer

BATCH = 32  # windows read together
SINGLE = {"bound": BOUND, "autoregressive": AUTOREGRESSIVE_BITS, "inside": INSIDE_BITS}  # of Likelihood


@dataclass(frozen=True)
class Windows:
    """Windows of held-out tokens [R, L], and how many characters each of them is [R]."""

    tokens: Tensor
    characters: Tensor

    @classmethod
    def of(cls, texts: TextSet, length: int, count: int, device: torch.device) -> Windows:
        tokens = data.held_out(texts.tokens["test"], length, count)
        lengths = [len(texts.tokenizer.decode(row)) for row in tokens.tolist()]
        return cls(tokens.to(device), torch.tensor(lengths, dtype=torch.float64))

    def bits(self, nats: Tensor) -> Ratio:
        """Bits per character of windows with `nats` per token [R]."""
        return ratios.per_character(self._bits(nats), self.characters)

    def parts(self, nats: Tensor) -> list[float]:
        """What the windows say of the bits per character, one by one or in groups."""
        return ratios.parts(self._bits(nats), self.characters)

    def _bits(self, nats: Tensor) -> Tensor:
        return nats.double() * self.tokens.shape[1] / math.log(2)

    def mean(self, losses: Callable[[Tensor, int], Tensor], world: World, repeats: int = 1) -> Tensor:
        """Mean nats per token [R] of losses(windows, batch) [b, ...] or [b], divided over `world`."""
        parts = self.tokens.split(BATCH) * repeats
        shares = parallel.arrays(
            lambda i: {"nats": losses(parts[i], i).double().reshape(len(parts[i]), -1).mean(1).cpu().numpy()},
            len(parts),
            world,
        )
        nats = np.concatenate([part["nats"] for part in shares])
        return torch.from_numpy(nats.reshape(repeats, -1).mean(axis=0))


def measure(
    writer: Writer, texts: TextSet, settings: TextEvaluate, world: World
) -> tuple[dict[str, Metric], Likelihood | None]:
    """The metrics of held-out text by name, and of a diffusion model its bits against evaluations a token.

    All models are measured on the same windows, so their differences are paired.
    """
    network, context = writer.trained.network, writer.trained.config.context
    block = writer.block if isinstance(network, Diffusion) else 1
    windows = Windows.of(texts, context - context % block, settings.bound_windows, world.device)
    nats = _nats(writer, windows, settings, world)
    bits = {name: windows.bits(one) for name, one in nats.items()}
    own = next((name for name in (AUTOREGRESSIVE_BITS.name, INSIDE_BITS.name) if name in nats), None)
    metrics: dict[str, Metric] = {}
    more: dict[str, Ratio] = {}  # than the autoregressive model
    for name, (value, error) in bits.items():
        known = find(GLOSSARY, name)
        assert known is not None
        definition, evaluations = known
        compared = own if definition in (CHAIN, BOUND) else None
        floor, count = bits[compared][0] if compared else None, windows.tokens.numel()
        metric = definition.measured(value, se=error, floor=floor, n=count)
        metrics[name] = metric.model_copy(update={"parts": windows.parts(nats[name])})
        if compared:
            more[name] = windows.bits(nats[name] - nats[compared])
            label = f"{DIFFERENCE.name}_{evaluations}" if evaluations else DIFFERENCE.name
            metrics[label] = DIFFERENCE.measured(more[name][0], se=more[name][1], n=count)
    if not isinstance(network, Diffusion):
        return metrics, None
    chains = [_point(count, writer, bits, more) for count in sorted(settings.evaluations_per_token)]
    single = {name: bits[metric.name][0] for name, metric in SINGLE.items() if metric.name in bits}
    counts = {"characters": int(windows.characters.sum()), "windows": len(windows.tokens)}
    return metrics, Likelihood(block=block, tilt=writer.path.tilt, chains=chains, **counts, **single)


def _point(evaluations: float, writer: Writer, bits: Mapping[str, Ratio], more: Mapping[str, Ratio]) -> ChainBits:
    name, (path, steps) = chain_name(evaluations), writer.path_by(evaluations)
    (value, error), (gap, gap_error) = bits[name], more[name]
    return ChainBits(
        evaluations=steps / path.block,
        steps=steps,
        block=path.block,
        lanes=path.lanes if path.tilt else 1,  # slots that are all alike have none
        bits=value,
        se=error,
        difference=gap,
        difference_se=gap_error,
    )


def chain_name(evaluations: float) -> str:
    """The metric of so many evaluations a token."""
    return f"{CHAIN.name}_{evaluations:g}"


@torch.no_grad()
def _nats(writer: Writer, windows: Windows, settings: TextEvaluate, world: World) -> dict[str, Tensor]:
    """Nats per token of each window [R], by the name of the metric."""
    network, tokens, seed = writer.trained.network, windows.tokens, seed_of(settings.seed, "bound")
    nats: dict[str, Tensor] = {}
    if isinstance(network, Diffusion):
        draws, table = settings.bound_draws, network.embeddings()
        for evaluations in settings.evaluations_per_token:
            path, steps = writer.path_by(evaluations)
            posterior = block_posterior(network, path.block)
            nats[chain_name(evaluations)] = chain_bound(posterior, tokens, table, path, steps, seed, draws, world)
        posterior = block_posterior(network, writer.block)
        nats[BOUND.name] = path_bound(posterior, tokens, table, writer.path, seed, draws, world)
        nats[INSIDE_BITS.name] = _autoregressive(network.autoregressive, windows, world)
    if isinstance(network, Masked):
        nats[BOUND.name] = _masked(network, windows, settings, world)
    if writer.other is not None:
        nats[AUTOREGRESSIVE_BITS.name] = _autoregressive(writer.other, windows, world)
    return nats


def _autoregressive(model: Autoregressive, windows: Windows, world: World) -> Tensor:
    return windows.mean(lambda part, _: token_losses(model(part[:, :-1]), part), world)


def _masked(network: Masked, windows: Windows, settings: TextEvaluate, world: World) -> Tensor:
    """The bound of masked diffusion: shares of masks are stratified over windows and draws."""
    rows, draws = len(windows.tokens), settings.bound_draws
    shares = ((torch.arange(rows)[:, None] + 0.5) / rows + torch.arange(draws)) / draws  # [R, draws]
    batches = [part for draw in shares.T for part in draw.split(BATCH)]

    def losses(part: Tensor, index: int) -> Tensor:
        share = batches[index]
        uniform = torch.rand(part.shape, generator=generator_of(settings.seed, "masks", index))
        masks, share = (uniform < share[:, None]).to(part.device), share.to(part.device)
        return masked_loss(network(part.masked_fill(masks, network.vocabulary)), part, masks, share)

    return windows.mean(losses, world, repeats=draws)
