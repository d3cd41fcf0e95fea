"""Samples against real text: every metric with its floor, and the curves of the report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.config import config_hash
from core.errors import UserError
from core.processes import parts as parallel
from core.processes.world import SINGLE_PROCESS, World
from core.randomness import generator_of
from core.storage import integrity
from core.text import data, fusion, metrics
from core.text.autoregressive import Autoregressive, bits_per_character
from core.text.bound import variational_bound
from core.text.config import TextEvaluate, TextModel, TextSample
from core.text.data import TextSet
from core.text.denoiser import Diffusion
from core.text.masked import Masked, masked_loss
from core.text.metrics import NGramJudge
from core.text.model import TrainedText
from core.text.objective import gamma_losses, noisy_windows, token_losses
from core.text.sampling import Writer

BETTER = {"word_validity": "higher", "word_validity_4": "higher", "distinct_2": "higher", "entropy": None}
FUSION_EXAMPLES = 3  # spans whose tokens are kept one by one, for the report


def judge_description(text: str, order: int) -> dict[str, Any]:
    """What identifies the n-gram judge of a training text: it is rebuilt from both in seconds."""
    return {
        "kind": "Witten-Bell character n-grams",
        "order": order,
        "sha256": hashlib.sha256(f"{order}\0{text}".encode()).hexdigest(),
        "n": len(text),
    }


def load_judge(folder: Path, texts: TextSet) -> tuple[NGramJudge, str]:
    """The judge of a data set and its hash.

    Raises:
        UserError: it was made from another text.
    """
    facts = integrity.read_json(folder / "judge.json")
    order = int(facts.get("order", 0))
    if order < 1 or judge_description(texts.texts["train"], order)["sha256"] != facts.get("sha256"):
        raise UserError(f"{folder}: the judge was not made from this data set; run train-judge again")
    return NGramJudge(texts.texts["train"], order), str(facts["sha256"])


def sample_metrics(
    rows: Sequence[dict[str, Any]], texts: TextSet, judge: NGramJudge, judge_sha256: str, world: World = SINGLE_PROCESS
) -> dict[str, dict[str, Any]]:
    """Metrics of unprompted samples for each mode; the floor is the same measure of as much real text.

    Reference of the n-grams is validation text, the floor's text is from the test split: like is compared with like.
    """
    found: dict[str, dict[str, Any]] = {}
    train = texts.texts["train"]
    found_modes = {str(row["mode"]) for row in rows if not row.get("prompt")}
    modes = sorted(found_modes, key=lambda mode: (mode != "diffusion", mode))  # a set's own order differs by process
    measured: list[tuple[list[str], list[str]]] = []  # the texts, and the reference for their n-grams
    for mode in modes:
        made = [str(row["text"]) for row in rows if row["mode"] == mode and not row.get("prompt")]
        size = sum(map(len, made)) // max(1, len(made))
        reference = _pieces(texts.texts["validation"], size, len(made))
        measured += [(made, reference), (_pieces(texts.texts["test"], size, len(made)), reference)]
    results = parallel.values(lambda i: metrics.measure(*measured[i], train, judge), len(measured), world)
    for mode, (made, _), values, floors in zip(modes, measured[::2], results[::2], results[1::2], strict=True):
        for name, value in values.items():
            entry = {
                "value": round(value, 5),
                "floor": round(floors[name], 5),
                "n": sum(map(len, made)),
                "judge": judge_sha256 if name == "judge_nll" else None,
            }
            if (better := BETTER.get(name, "lower")) is not None:
                entry["better"] = better
            found[name if mode == "diffusion" else f"{name}_{mode}"] = entry
    return found


def _pieces(text: str, size: int, count: int) -> list[str]:
    """Up to `count` pieces of `size` characters spread evenly over `text`, not overlapping."""
    whole = max(1, len(text) // max(1, size))
    count = min(count, whole)
    return [text[place * size : (place + 1) * size] for place in (i * whole // count for i in range(count))]


@torch.no_grad()
def bounds(
    trained: TrainedText,
    other: Autoregressive | None,
    texts: TextSet,
    settings: TextEvaluate,
    world: World = SINGLE_PROCESS,
) -> dict[str, float]:
    """Bits per character of held-out text: the bound of diffusion or masks, and the autoregressive likelihood."""
    network, config, device = trained.network, trained.config, world.device
    tokens = data.held_out(texts.tokens["test"], config.context, settings.bound_windows).to(device)
    draws, rate = generator_of(settings.seed, "bound"), _characters_per_token(tokens, texts)
    found: dict[str, float] = {}
    if isinstance(network, Diffusion):
        found["bound_bits_per_character"] = bits_per_character(diffusion_bound(network, tokens, draws, world), rate)
    elif isinstance(network, Masked):
        share = (0.5 + torch.arange(len(tokens) * 8, device=device)) / (len(tokens) * 8)
        many = tokens.repeat(8, 1)
        masks = (torch.rand(many.shape, generator=draws) < share.cpu()[:, None]).to(device)
        hidden = many.masked_fill(masks, network.vocabulary)
        places = torch.arange(len(many), device=device).split(64)
        nats = _mean(lambda i: masked_loss(network(hidden[i]), many[i], masks[i], share[i]), places, world)
        found["bound_bits_per_character"] = bits_per_character(nats, rate)
    if other is not None:
        nats = _mean(lambda part: token_losses(other(part[:, :-1]), part), tokens.split(32), world)
        found["autoregressive_bits_per_character"] = bits_per_character(nats, rate)
    return found


def _mean(losses: Callable[[Tensor], Tensor], parts: Sequence[Tensor], world: World) -> float:
    """Mean of the losses of all parts together, divided over `world`."""
    found = parallel.arrays(lambda i: {"losses": losses(parts[i]).cpu().numpy()}, len(parts), world)
    return float(np.concatenate([part["losses"] for part in found]).mean(dtype=np.float64))


def diffusion_bound(network: Diffusion, tokens: Tensor, draws: torch.Generator, world: World = SINGLE_PROCESS) -> float:
    """Nats per token of tokens [B, L]: the sum over blocks of their bounds given the clean text before."""
    process = network.config.process
    block = process.blocks[0]
    known = torch.zeros_like(tokens, dtype=torch.bool)

    def denoise(z: Tensor, gamma: Tensor) -> Tensor:
        shape = noisy_windows(network, tokens, gamma, torch.zeros_like(z), known, block)
        return network(replace(shape, z=z), block)[0]

    low, high = process.gamma_min, process.gamma_max
    return variational_bound(denoise, tokens, network.embeddings(), low, high, draws, world=world)


def _characters_per_token(tokens: Tensor, texts: TextSet) -> float:
    return sum(len(texts.tokenizer.decode(row)) for row in tokens.tolist()) / tokens.numel()


@torch.no_grad()
def frontier(
    writer: Writer, judge: NGramJudge, settings: TextEvaluate, world: World = SINGLE_PROCESS
) -> list[dict[str, Any]]:
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

    return parallel.values(row, len(points), world)


@torch.no_grad()
def fusion_curves(
    network: Diffusion, other: Autoregressive, texts: TextSet, settings: TextEvaluate, world: World = SINGLE_PROCESS
) -> list[dict[str, Any]]:
    """Nats per character of held-out middles, both sides given, against alpha of (A) and w of (B), by span length."""
    return [_curve(network, other, texts, settings, span, world) for span in settings.spans]


def _curve(
    network: Diffusion, other: Autoregressive, texts: TextSet, settings: TextEvaluate, span: int, world: World
) -> dict[str, Any]:
    weights, names, decode = list(settings.weights), ("nats_alpha", "nats_w"), texts.tokenizer.decode
    spans = held_out_spans(network.config, texts, span, settings)

    def measure(index: int) -> dict[str, Any]:
        """One span: nats of its middle under each law, [weights], and of each of its tokens, [weights][tokens]."""
        left, middle, right = (side.to(world.device) for side in spans[index])
        draws = generator_of(settings.seed, "fusion", span, index)
        own, both, alone = fusion.middle_laws(other, network, left[None], middle[None], right[None], draws)
        found: dict[str, Any] = {name: [] for name in ("sums", *names)}
        for weight in weights:
            laws = (fusion.mix(own, both, weight), fusion.bayes(own, both, alone, weight))
            each = [-law.gather(-1, middle[None, :, None])[0, :, 0] for law in laws]
            found["sums"].append([float(nats.sum()) for nats in each])
            for name, nats in zip(names, each, strict=True):
                found[name].append([round(value, 3) for value in nats.tolist()])
        sides = {"left": decode(left.tolist()), "right": decode(right.tolist())}
        tokens = [decode([token]) for token in middle.tolist()]
        return {**sides, "tokens": tokens, "characters": len(decode(middle.tolist())), **found}

    measured = parallel.values(measure, len(spans), world)
    characters = sum(one["characters"] for one in measured)
    totals = [[sum(one["sums"][place][law] for one in measured) for place in range(len(weights))] for law in (0, 1)]
    curves = {
        name: [round(total / max(1, characters), 5) for total in row] for name, row in zip(names, totals, strict=True)
    }
    shown = ("left", "right", "tokens", *names)
    return {
        "span": span,
        "alpha": weights,
        "w": weights,
        **curves,
        "characters": characters,
        "seed": settings.seed,
        "examples": [{name: one[name] for name in shown} for one in measured[:FUSION_EXAMPLES]],
    }


def held_out_spans(
    config: TextModel, texts: TextSet, span: int, settings: TextEvaluate
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Tokens (left, middle, right) of held-out text, the middle about `span` characters; drawn by the seed."""
    text, encode = texts.texts["test"], texts.tokenizer.encode
    draws = generator_of(settings.seed, "spans", span)
    room, parts = max(config.process.blocks), []
    margin = min(round(config.context * texts.characters_per_token) // 2, (len(text) - span) // 2 - 1)
    if margin < 1:
        raise UserError(f"evaluate.spans: the test split of {len(text)} characters is too short for spans of {span}")
    for place in torch.randint(margin, len(text) - span - margin, (settings.span_count,), generator=draws).tolist():
        left, middle = encode(text[place - margin : place]), encode(text[place : place + span])
        right = encode(text[place + span : place + span + margin])
        keep = room - len(middle)
        if keep < 1:
            continue
        parts.append(
            (
                torch.tensor(left[-(config.context // 2) :], dtype=torch.long),
                torch.tensor(middle, dtype=torch.long),
                torch.tensor(right[:keep], dtype=torch.long),
            )
        )
    return parts


def evaluate(
    settings: TextEvaluate,
    sampling: TextSample,
    rows: Sequence[dict[str, Any]],
    texts: TextSet,
    judge: NGramJudge,
    judge_sha256: str,
    trained: TrainedText,
    other: Autoregressive | None,
    world: World = SINGLE_PROCESS,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of metrics.json and evaluation.json, in every process of `world`, which divide the work."""
    found: dict[str, Any] = sample_metrics(rows, texts, judge, judge_sha256, world)
    limits = bounds(trained, other, texts, settings, world)
    count = settings.bound_windows * trained.config.context
    for name, value in limits.items():
        floor = limits.get("autoregressive_bits_per_character") if name.startswith("bound") else None
        entry = {"value": round(value, 5), "floor": floor and round(floor, 5), "n": count, "judge": None}
        found[name] = {**entry, "better": "lower"}
    network = trained.network
    facts: dict[str, Any] = {
        "modality": "text",
        "key": config_hash(
            {"evaluate": settings.model_dump(mode="json"), "judge": judge_sha256, "data": texts.metadata}
        ),
        "frontier": frontier(Writer(trained, other, sampling, world.device), judge, settings, world),
        "copies": {name: value for name, value in found.items() if name.startswith(("longest_copy", "copies"))},
    }
    if isinstance(network, Diffusion):
        tokens = data.held_out(texts.tokens["test"], trained.config.context, 32)
        facts["gamma_bins"] = gamma_losses(network, tokens, trained.config.process.blocks[0], world=world)
        curves = fusion_curves(network, other or network.autoregressive, texts, settings, world)
        facts["fusion"] = curves
        for curve in curves:
            for name in ("nats_alpha", "nats_w"):
                label = f"infill_{name.removeprefix('nats_')}_{curve['span']}"
                found[label] = {
                    "value": min(curve[name]),
                    "floor": None,
                    "n": curve["characters"],
                    "judge": None,
                    "better": "lower",
                    "autoregressive": curve[name][0],
                }
    return found, facts
