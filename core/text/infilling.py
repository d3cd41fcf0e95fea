"""Filling gaps of held-out text whose both sides are given: how surprising the true middle is to each way of doing it.

All ways see the same spans and the same sides, and are paired: the autoregressive model that reads on, its drafts
reranked by the right side, and its fusion with diffusion at weights from one to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.errors import UserError
from core.evaluation import FusionCurve, FusionExample
from core.metrics import Definition, Metric
from core.processes import parts as parallel
from core.processes.world import SINGLE_PROCESS, World
from core.randomness import Noise, generator_of
from core.text import fusion, ratios, reranking
from core.text.autoregressive import Autoregressive
from core.text.config import TextEvaluate, TextModel
from core.text.data import TextSet
from core.text.denoiser import Diffusion
from core.text.glossary import INFILL_ALPHA, INFILL_RERANKED, INFILL_W

EXAMPLES = 3  # spans whose tokens are kept one by one, for the report


@torch.no_grad()
def measure(
    network: Diffusion, other: Autoregressive, texts: TextSet, settings: TextEvaluate, world: World = SINGLE_PROCESS
) -> tuple[dict[str, Metric], list[FusionCurve]]:
    """Nats per character of held-out middles by span length: metrics by name, and against alpha of (A) and w of (B)."""
    metrics: dict[str, Metric] = {}
    curves: list[FusionCurve] = []
    for span in settings.spans:
        spans = held_out_spans(network.config, texts, span, settings)
        if spans:  # else no block has room for so long a one
            more, curve = _measured(network, other, texts, settings, span, spans, world)
            metrics |= more
            curves.append(curve)
    return metrics, curves


def _measured(
    network: Diffusion,
    other: Autoregressive,
    texts: TextSet,
    settings: TextEvaluate,
    span: int,
    spans: Sequence[tuple[Tensor, Tensor, Tensor]],
    world: World,
) -> tuple[dict[str, Metric], FusionCurve]:
    weights, names, decode = list(settings.weights), ("nats_alpha", "nats_w"), texts.tokenizer.decode

    def nats(index: int) -> dict[str, Any]:
        """One span: nats of its middle under each law, [weights], and of each of its tokens, [weights][tokens]."""
        left, middle, right = (side.to(world.device) for side in spans[index])
        noise = Noise.of(settings.seed, "fusion", span, rows=[index], device=world.device)
        own, both, alone = fusion.middle_laws(other, network, left[None], middle[None], right[None], noise)
        curve: dict[str, Any] = {name: [] for name in ("sums", *names)}
        for weight in weights:
            laws = (fusion.mix(own, both, weight), fusion.bayes(own, both, alone, weight))
            each = [-law.gather(-1, middle[None, :, None])[0, :, 0] for law in laws]
            curve["sums"].append([float(nats.sum()) for nats in each])
            for name, tokens in zip(names, each, strict=True):
                curve[name].append([round(value, 3) for value in tokens.tolist()])
        drafts = Noise.of(settings.seed, "drafts", span, index, rows=settings.drafts - 1, device=world.device)
        single = reranking.surprise(other, left, middle, right, drafts)
        sides = {"left": decode(left.tolist()), "right": decode(right.tolist())}
        shown = [decode([token]) for token in middle.tolist()]
        return {**sides, "tokens": shown, "characters": len(decode(middle.tolist())), "single": single, **curve}

    measured = parallel.values(nats, len(spans), world)
    characters = torch.tensor([one["characters"] for one in measured], dtype=torch.float64)
    sums = torch.tensor([one["sums"] for one in measured], dtype=torch.float64)  # [spans, weights, 2]
    single = torch.tensor([one["single"] for one in measured], dtype=torch.float64)  # [spans, 2]
    own, reranked = (ratios.per_character(column, characters) for column in single.T)
    columns = {INFILL_RERANKED: single[:, 1]}
    columns |= {law: chosen_elsewhere(sums[..., place]) for place, law in enumerate((INFILL_ALPHA, INFILL_W))}
    curve = FusionCurve(
        span=span,
        alpha=weights,
        w=weights,
        **{name: _rounded(sums[..., place].sum(0) / characters.sum()) for place, name in enumerate(names)},
        autoregressive=own[0],
        reranked=reranked[0],
        drafts=settings.drafts,
        characters=int(characters.sum()),
        seed=settings.seed,
        examples=[FusionExample.model_validate(one) for one in measured[:EXAMPLES]],
    )
    return {f"{law.name}_{span}": _metric(law, nats, characters, own[0]) for law, nats in columns.items()}, curve


def _metric(law: Definition, nats: Tensor, characters: Tensor, own: float) -> Metric:
    value, error = ratios.per_character(nats, characters)
    metric = law.measured(value, se=error, n=int(characters.sum()))
    return metric.model_copy(update={"parts": ratios.parts(nats, characters), "autoregressive": own})


def chosen_elsewhere(sums: Tensor) -> Tensor:
    """Nats [R] of spans, of [R, weights], at the weight that is best on the other half of them: every second one.

    A weight that was chosen on the spans it is reported on would be flattered. A single span has its first weight.
    """
    odd = torch.arange(len(sums)) % 2 == 1
    best = [int(sums[odd != half].sum(0).argmin()) for half in (False, True)]
    return torch.where(odd, sums[:, best[1]], sums[:, best[0]])


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]


def held_out_spans(
    config: TextModel, texts: TextSet, span: int, settings: TextEvaluate
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Tokens (left, middle, right) of held-out text, the middle about `span` characters; places drawn by the seed.

    The three are within the context: the autoregressive model reads as much of the right side as diffusion does.
    Spans begin and end between tokens of the text: one cut inside a token would be measured in pieces that nobody was
    trained on.
    """
    tokens, context, room = texts.tokens["test"], config.context, max(config.process.blocks)
    size, side = max(1, round(span / texts.characters_per_token)), context // 2
    last = len(tokens) - size - side
    if last < side:
        raise UserError(f"evaluate.spans: the test split of {len(tokens)} tokens is too short for spans of {span}")
    end = min(room, context - side)
    if size >= end:
        return []
    places = torch.randint(side, last + 1, (settings.span_count,), generator=generator_of(settings.seed, "spans", span))
    around = [tokens[i - side : i + end].long() for i in places.tolist()]
    return [(some[:side], some[side : side + size], some[side + size :]) for some in around]
