"""The curves of an evaluation of text: surprise against entropy by temperature, and fusion by its weight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from core.errors import UserError
from core.evaluation import FrontierPoint, FusionCurve, FusionExample
from core.processes import parts as parallel
from core.processes.world import SINGLE_PROCESS, World
from core.randomness import generator_of
from core.text import fusion, metrics
from core.text.autoregressive import Autoregressive
from core.text.config import TextEvaluate, TextModel
from core.text.data import TextSet
from core.text.denoiser import Diffusion
from core.text.metrics import NGramJudge
from core.text.sampling import Writer

FUSION_EXAMPLES = 3  # spans whose tokens are kept one by one, for the report


@torch.no_grad()
def frontier(
    writer: Writer, judge: NGramJudge, settings: TextEvaluate, world: World = SINGLE_PROCESS
) -> list[FrontierPoint]:
    """Judge surprise and entropy of samples at each temperature, for diffusion and the autoregressive model."""
    modes = ["diffusion", "autoregressive"] if isinstance(writer.trained.network, Diffusion) else ["diffusion"]
    points = [(temperature, mode) for temperature in settings.temperatures for mode in modes]

    def row(index: int) -> dict[str, Any]:
        temperature, mode = points[index]
        warm = replace(writer, settings=writer.settings.model_copy(update={"temperature": temperature}))
        made = warm.texts(mode, settings.frontier_count)
        return {
            "mode": mode,
            "temperature": temperature,
            "entropy": round(metrics.entropy("".join(made)), 5),
            "judge_nll": round(judge.nats_per_character(made), 5),
            "n": sum(map(len, made)),
        }

    return [FrontierPoint.model_validate(one) for one in parallel.values(row, len(points), world)]


@torch.no_grad()
def fusion_curves(
    network: Diffusion, other: Autoregressive, texts: TextSet, settings: TextEvaluate, world: World = SINGLE_PROCESS
) -> list[FusionCurve]:
    """Nats per character of held-out middles, both sides given, against alpha of (A) and w of (B), by span length."""
    curves = [_curve(network, other, texts, settings, span, world) for span in settings.spans]
    return [curve for curve in curves if curve.characters]  # no block has room for a longer span


def _curve(
    network: Diffusion, other: Autoregressive, texts: TextSet, settings: TextEvaluate, span: int, world: World
) -> FusionCurve:
    weights, names, decode = list(settings.weights), ("nats_alpha", "nats_w"), texts.tokenizer.decode
    spans = held_out_spans(network.config, texts, span, settings)

    def measure(index: int) -> dict[str, Any]:
        """One span: nats of its middle under each law, [weights], and of each of its tokens, [weights][tokens]."""
        left, middle, right = (side.to(world.device) for side in spans[index])
        draws = generator_of(settings.seed, "fusion", span, index)
        own, both, alone = fusion.middle_laws(other, network, left[None], middle[None], right[None], draws)
        curve: dict[str, Any] = {name: [] for name in ("sums", *names)}
        for weight in weights:
            laws = (fusion.mix(own, both, weight), fusion.bayes(own, both, alone, weight))
            each = [-law.gather(-1, middle[None, :, None])[0, :, 0] for law in laws]
            curve["sums"].append([float(nats.sum()) for nats in each])
            for name, nats in zip(names, each, strict=True):
                curve[name].append([round(value, 3) for value in nats.tolist()])
        sides = {"left": decode(left.tolist()), "right": decode(right.tolist())}
        tokens = [decode([token]) for token in middle.tolist()]
        return {**sides, "tokens": tokens, "characters": len(decode(middle.tolist())), **curve}

    measured = parallel.values(measure, len(spans), world)
    characters = sum(one["characters"] for one in measured)
    totals = [[sum(one["sums"][place][law] for one in measured) for place in range(len(weights))] for law in (0, 1)]
    curves = {
        name: [round(total / max(1, characters), 5) for total in row] for name, row in zip(names, totals, strict=True)
    }
    return FusionCurve(
        span=span,
        alpha=weights,
        w=weights,
        **curves,
        characters=characters,
        seed=settings.seed,
        examples=[FusionExample.model_validate(one) for one in measured[:FUSION_EXAMPLES]],
    )


def held_out_spans(
    config: TextModel, texts: TextSet, span: int, settings: TextEvaluate
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Tokens (left, middle, right) of held-out text, the middle about `span` characters; places drawn by the seed.

    Spans begin and end between tokens of the text: one cut inside a token would be measured in pieces that nobody was
    trained on.
    """
    tokens, context, room = texts.tokens["test"], config.context, max(config.process.blocks)
    size, side = max(1, round(span / texts.characters_per_token)), context // 2
    last = len(tokens) - size - side
    if last < side:
        raise UserError(f"evaluate.spans: the test split of {len(tokens)} tokens is too short for spans of {span}")
    if size >= room:
        return []
    places = torch.randint(side, last + 1, (settings.span_count,), generator=generator_of(settings.seed, "spans", span))
    end = min(size + side, room)
    around = [tokens[i - side : i + end].long() for i in places.tolist()]
    return [(some[:side], some[side : side + size], some[side + size :]) for some in around]
