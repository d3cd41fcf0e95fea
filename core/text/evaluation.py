"""Samples against real text: every metric with its floor, and the curves of the report."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core import storage
from core.config import config_hash
from core.errors import UserError
from core.randomness import generator_of
from core.text import data, fusion, metrics
from core.text.autoregressive import NextToken, bits_per_character
from core.text.bound import variational_bound
from core.text.config import TextEvaluate, TextModel, TextSample
from core.text.data import TextSet
from core.text.diffusion import Diffusion
from core.text.drawing import Sampler
from core.text.masked import Masked, masked_loss
from core.text.metrics import NGramJudge
from core.text.model import TrainedText
from core.text.objectives import gamma_losses, noisy_windows, token_losses

BETTER = {"word_validity": "higher", "word_validity_4": "higher", "distinct_2": "higher", "entropy": None}
MIDDLE_MARGIN = 64  # characters of context on each side of a held-out span, at least
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
    facts = storage.read_json(folder / "judge.json")
    order = int(facts.get("order", 0)) if isinstance(facts, dict) else 0
    if order < 1 or judge_description(texts.texts["train"], order)["sha256"] != facts.get("sha256"):
        raise UserError(f"{folder}: the judge was not made from this data set; run train-judge again")
    return NGramJudge(texts.texts["train"], order), str(facts["sha256"])


def sample_metrics(
    rows: Sequence[dict[str, Any]], texts: TextSet, judge: NGramJudge, judge_sha256: str
) -> dict[str, dict[str, Any]]:
    """Metrics of unprompted samples for each mode; the floor is the same measure of as much real text.

    Reference of the n-grams is validation text, the floor's text is from the test split: like is compared with like.
    """
    found: dict[str, dict[str, Any]] = {}
    train = texts.texts["train"]
    modes = sorted({str(row["mode"]) for row in rows if not row.get("prompt")}, key=lambda mode: mode != "diffusion")
    for mode in modes:
        made = [str(row["text"]) for row in rows if row["mode"] == mode and not row.get("prompt")]
        size = sum(map(len, made)) // max(1, len(made))
        reference = _pieces(texts.texts["validation"], size, len(made))
        real = _pieces(texts.texts["test"], size, len(made))
        values, floors = metrics.measure(made, reference, train, judge), metrics.measure(real, reference, train, judge)
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
    trained: TrainedText, other: NextToken | None, texts: TextSet, settings: TextEvaluate, device: torch.device
) -> dict[str, float]:
    """Bits per character of held-out text: the bound of diffusion or masks, and the autoregressive likelihood."""
    network, config = trained.network, trained.config
    tokens = data.held_out(texts.tokens["test"], config.context, settings.bound_windows).to(device)
    draws, rate = generator_of(settings.seed, "bound"), _characters_per_token(tokens, texts)
    found: dict[str, float] = {}
    if isinstance(network, Diffusion):
        found["bound_bits_per_character"] = bits_per_character(diffusion_bound(network, tokens, draws), rate)
    elif isinstance(network, Masked):
        share = (0.5 + torch.arange(len(tokens) * 8, device=device)) / (len(tokens) * 8)
        many = tokens.repeat(8, 1)
        masks = (torch.rand(many.shape, generator=draws) < share.cpu()[:, None]).to(device)
        logits = torch.cat([network(part) for part in many.masked_fill(masks, network.vocabulary).split(64)])
        found["bound_bits_per_character"] = bits_per_character(
            float(masked_loss(logits, many, masks, share).mean()), rate
        )
    if other is not None:
        nats = torch.cat([token_losses(other(part[:, :-1]), part) for part in tokens.split(32)]).mean()
        found["autoregressive_bits_per_character"] = bits_per_character(float(nats), rate)
    return found


def diffusion_bound(network: Diffusion, tokens: Tensor, draws: torch.Generator) -> float:
    """Nats per token of tokens [B, L]: the sum over blocks of their bounds given the clean text before."""
    process = network.config.process
    block = process.blocks[0]
    known = torch.zeros_like(tokens, dtype=torch.bool)

    def denoise(z: Tensor, gamma: Tensor) -> Tensor:
        shape = noisy_windows(network, tokens, gamma, torch.zeros_like(z), known, block)
        return network(replace(shape, z=z), block)[0]

    return variational_bound(denoise, tokens, network.embeddings(), process.gamma_min, process.gamma_max, draws)


def _characters_per_token(tokens: Tensor, texts: TextSet) -> float:
    return sum(len(texts.tokenizer.decode(row)) for row in tokens.tolist()) / tokens.numel()


@torch.no_grad()
def frontier(sampler: Sampler, judge: NGramJudge, settings: TextEvaluate) -> list[dict[str, Any]]:
    """Judge surprise and entropy of samples at each temperature, for diffusion and the autoregressive model."""
    modes = ["diffusion", "autoregressive"] if isinstance(sampler.trained.network, Diffusion) else ["diffusion"]
    rows = []
    for temperature in settings.temperatures:
        warm = replace(sampler, settings=sampler.settings.model_copy(update={"temperature": temperature}))
        for mode in modes:
            made = warm.texts(mode, settings.frontier_count)
            rows.append(
                {
                    "mode": mode,
                    "temperature": temperature,
                    "entropy": round(metrics.entropy("".join(made)), 5),
                    "judge_nll": round(judge.nats_per_character(made), 5),
                    "n": sum(map(len, made)),
                }
            )
    return rows


@torch.no_grad()
def fusion_curves(
    network: Diffusion, other: NextToken, texts: TextSet, settings: TextEvaluate, device: torch.device
) -> list[dict[str, Any]]:
    """Nats per character of held-out middles, both sides given, against alpha of (A) and w of (B), by span length."""
    return [_curve(network, other, texts, settings, span, device) for span in settings.spans]


def _curve(
    network: Diffusion, other: NextToken, texts: TextSet, settings: TextEvaluate, span: int, device: torch.device
) -> dict[str, Any]:
    weights = list(settings.weights)
    totals = {"nats_alpha": [0.0] * len(weights), "nats_w": [0.0] * len(weights)}
    characters, examples = 0, []
    for index, (left, middle, right) in enumerate(held_out_spans(network.config, texts, span, settings)):
        draws = generator_of(settings.seed, "fusion", span, index)
        left, middle, right = left.to(device), middle.to(device), right.to(device)
        own, both, alone = fusion.middle_laws(other, network, left[None], middle[None], right[None], draws)
        nats: dict[str, list[list[float]]] = {name: [] for name in totals}
        for place, weight in enumerate(weights):
            laws = {"nats_alpha": fusion.mix(own, both, weight), "nats_w": fusion.bayes(own, both, alone, weight)}
            for name, law in laws.items():
                each = -law.gather(-1, middle[None, :, None])[0, :, 0]
                totals[name][place] += float(each.sum())
                nats[name].append([round(value, 3) for value in each.tolist()])
        decode = texts.tokenizer.decode
        characters += len(decode(middle.tolist()))
        if index < FUSION_EXAMPLES:
            sides = {"left": decode(left.tolist()), "right": decode(right.tolist())}
            examples.append({**sides, "tokens": [decode([token]) for token in middle.tolist()], **nats})
    return {
        "span": span,
        "alpha": weights,
        "w": weights,
        **{name: [round(value / max(1, characters), 5) for value in values] for name, values in totals.items()},
        "characters": characters,
        "seed": settings.seed,
        "examples": examples,
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
    other: NextToken | None,
    device: torch.device,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of metrics.json and evaluation.json."""
    found: dict[str, Any] = sample_metrics(rows, texts, judge, judge_sha256)
    limits = bounds(trained, other, texts, settings, device)
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
        "frontier": frontier(Sampler(trained, other, sampling, device), judge, settings),
        "copies": {name: value for name, value in found.items() if name.startswith(("longest_copy", "copies"))},
    }
    if isinstance(network, Diffusion):
        tokens = data.held_out(texts.tokens["test"], trained.config.context, 32)
        facts["gamma_bins"] = gamma_losses(network, tokens, trained.config.process.blocks[0])
        curves = fusion_curves(network, other or network.autoregressive, texts, settings, device)
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
