"""What benchmarks/fair_text.py measures of a trained network on test text: bits, samples by two judges, gaps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.text_peers import (
    filled_nats,
    generate_blocks,
    mask_bound,
    mask_evaluations,
    mask_logits,
    masked_nats,
    plain_nats,
)
from core import storage
from core.processes.world import SINGLE_PROCESS, own_device
from core.randomness import Noise
from core.storage.checkpoint import deserialize, serialize
from core.text import autoregressive, data, fusion, generation, infilling, masked, metrics, reranking
from core.text.autoregressive import Autoregressive
from core.text.bound import chain_bound
from core.text.config import TextEvaluate, TextModel
from core.text.data import TextSet
from core.text.denoiser import Diffusion
from core.text.held_out import Windows
from core.text.masked import Masked
from core.text.metrics import NGramJudge
from core.text.objective import AutoregressiveObjective, block_posterior

Facts = dict[str, Any]
PROCESS = {"blocks": (8, 8, 32), "tilt": (1, 7)}  # without lanes; gaps of all are those that fit into its longest block
LANES = {"blocks": (8, 32, 32), "lanes": (1, 2, 4), "tilt": (1, 15), "next_evidence": True}  # of the jobs
TEMPERATURES = {True: (1.0, 0.9, 0.8, 0.7), False: (1.0, 0.9)}  # of an autoregressive model, and of others
DRAFTS = 16  # of a gap, of which the right side picks one
STATE = 1 << 28  # bytes of weights at most


@dataclass(frozen=True)
class Sizes:
    """Of all networks, and of what they are measured on."""

    context: int = 128
    width: int = 192
    depth: int = 4
    heads: int = 3
    windows: int = 192  # of test text: all that Tiny Shakespeare has, nearly
    draws: int = 32  # of the steps of a block: all of them up to four evaluations a token in blocks of 8
    count: int = 48  # texts of each way to sample
    spans: tuple[int, ...] = (8, 16)  # characters of a gap
    span_count: int = 192

    def model(self, process: Facts) -> TextModel:
        transformer = {"width": self.width, "depth": self.depth, "heads": self.heads}
        return TextModel.model_validate({"context": self.context, "transformer": transformer, "process": process})


def bits(place: Path, network: nn.Module, sizes: Sizes, evaluations: Sequence[float] = ()) -> list[Facts]:
    """Bits of each window of test text, exact or at most, by evaluations a token: of ours those that are asked for."""
    windows = windows_of(place, sizes)
    tokens, rows = windows.tokens, []
    if isinstance(network, Autoregressive):
        return [_bits(1.0, plain_nats(network, tokens, texts_of(place).tokenizer.size), windows, exact=True)]
    assert isinstance(network, Masked | Diffusion)
    block = sizes.context if isinstance(network, Masked) else network.config.process.blocks[0]
    if isinstance(network, Masked) or _has_masks(network):
        for steps in (block // 2, block, 4 * block):
            nats = mask_bound(mask_logits(network, block), tokens, block, steps, sizes.draws)
            rows.append(_bits(mask_evaluations(block, steps), nats, windows))
        return rows
    assert isinstance(network, Diffusion)
    for each in evaluations or (*(_fewer(network) or (0.5,)), 1, 2, 4):
        path, steps = generation.path_by_evaluations(network, each)
        posterior, table = block_posterior(network, path.block), network.embeddings()
        nats = chain_bound(posterior, tokens, table, path, steps, 0, sizes.draws, SINGLE_PROCESS)
        rows.append(_bits(steps / path.block, nats, windows))
    return rows


def _bits(evaluations: float, nats: Tensor, windows: Windows, exact: bool = False) -> Facts:
    sums = nats.double().cpu() * windows.tokens.shape[1] / math.log(2)
    return {"evaluations": round(evaluations, 3), "exact": exact, "windows": [round(one, 4) for one in sums.tolist()]}


def _fewer(network: Diffusion) -> tuple[float, ...]:
    """Evaluations a token, fewer than one, at which a step decides one slot of each lane."""
    return tuple(sorted({1 / lanes for lanes in network.config.process.lanes if lanes > 1}))


def _has_masks(network: nn.Module) -> bool:
    """Whether a network was trained on masks in one length of blocks, as the peers are."""
    return isinstance(network, Diffusion) and len(network.config.process.blocks) == 1


def samples(place: Path, network: nn.Module, seed: int, sizes: Sizes) -> list[Facts]:
    """What judges say of texts, by temperature and evaluations a token."""
    rows, texts = [], texts_of(place)
    for temperature in TEMPERATURES[isinstance(network, Autoregressive)]:
        for evaluations, draw in _ways(network, sizes, temperature):
            ids = draw(Noise.of(seed, "fair samples", str(temperature), rows=sizes.count, device=own_device()))
            made = [texts.tokenizer.decode([i for i in row if i < texts.tokenizer.size]) for row in ids.tolist()]
            rows.append({"temperature": temperature, "evaluations": evaluations, **verdict(place, sizes, made)})
    return rows


def _ways(network: nn.Module, sizes: Sizes, temperature: float) -> list[tuple[float, Callable[[Noise], Tensor]]]:
    """(evaluations a token, how to draw `count` rows of a context)."""
    count, length = sizes.count, sizes.context
    empty = torch.zeros(count, 0, dtype=torch.long, device=own_device())
    if isinstance(network, Autoregressive):
        return [(1.0, lambda noise: autoregressive.generate(network, empty, length, noise, temperature))]
    if isinstance(network, Masked):
        reached = round(mask_evaluations(length, length), 3)
        return [(reached, lambda noise: masked.generate(network, length, length, noise, temperature))]
    assert isinstance(network, Diffusion)
    if _has_masks(network):
        block = network.config.process.blocks[0]
        reached = round(mask_evaluations(block, 4 * block), 3)
        return [(reached, lambda noise: generate_blocks(network, length, 4 * block, noise, temperature))]

    def by(evaluations: float) -> Callable[[Noise], Tensor]:
        path, steps = generation.path_by_evaluations(network, evaluations)
        settings = generation.Settings(steps=steps, temperature=temperature)
        return lambda noise: generation.generate(network, empty, length, path.block, settings, noise)

    return [(evaluations, by(evaluations)) for evaluations in (*_fewer(network), 1.0, 2.0)]


def verdict(place: Path, sizes: Sizes, made: Sequence[str]) -> Facts:
    """Both judges' nats per character of texts, the entropy of their tokens in nats, and the share of real words."""
    counts = Counter(token for text in made for token in texts_of(place).tokenizer.encode(text))
    total = counts.total()
    return {
        "entropy": round(-sum(n / total * math.log(n / total) for n in counts.values()), 4),
        "n-gram judge": round(_ngrams(place).nats_per_character(made), 4),
        "second judge": round(_by_network(place, sizes, made), 4),
        "words": round(metrics.word_validity(made, _words(place)), 4),
        "characters": sum(map(len, made)),
    }


@torch.no_grad()
def _by_network(place: Path, sizes: Sizes, made: Sequence[str]) -> float:
    """The second judge's nats per character; what it has no letter for is a space to it."""
    network, tokenizer = _second(place, sizes), texts_of(place, "characters").tokenizer
    letters, nats, count = set("".join(texts_of(place).texts.values())), 0.0, 0
    for text in made:
        known = "".join(letter if letter in letters else " " for letter in text)
        for ids in torch.tensor(tokenizer.encode(known), dtype=torch.long).split(sizes.context):
            nats += float(plain_nats(network, ids[None].to(own_device()), tokenizer.size)) * len(ids)
            count += len(ids)
    return nats / max(1, count)


@torch.no_grad()
def infill(place: Path, network: nn.Module, seed: int, sizes: Sizes) -> Facts:
    """Nats of the middle of each gap by the ways that a network has, and the characters of the gaps, by span.

    Gaps begin and end between tokens and are the same for all. Block masks have no right side that reaches into a gap.
    """
    found: Facts = {}
    settings, size = TextEvaluate(span_count=sizes.span_count), texts_of(place).tokenizer.size
    for span in sizes.spans:
        gaps = infilling.held_out_spans(sizes.model(PROCESS), texts_of(place), span, settings)
        ways: dict[str, list[float]] = {}
        for index, sides in enumerate(gaps):
            left, middle, right = (side.to(own_device()) for side in sides)
            noise = Noise.of(seed, "fair gaps", span, rows=[index], device=own_device())
            for way, nats in _filled(network, size, left, middle, right, noise).items():
                ways.setdefault(way, []).append(round(nats, 4))
        if ways:
            characters = [len(texts_of(place).tokenizer.decode(middle.tolist())) for _, middle, _ in gaps]
            found[str(span)] = {"characters": characters, "ways": ways}
    return found


def _filled(
    network: nn.Module, size: int, left: Tensor, middle: Tensor, right: Tensor, noise: Noise
) -> dict[str, float]:
    """Nats of a middle by each way of a network; `size` is that of the vocabulary without marks."""
    if isinstance(network, Masked):
        return {"masks": masked_nats(network, left, middle, right)}
    if isinstance(network, Autoregressive):
        if size < network.vocabulary:
            return {"right side read first": filled_nats(network, left, middle, right)}
        own, reranked = reranking.surprise(network, left, middle, right, noise.repeated(DRAFTS - 1))
        return {"reads on": own, "drafts reranked": reranked}
    if not isinstance(network, Diffusion) or _has_masks(network):
        return {}
    laws = fusion.middle_laws(network.autoregressive, network, left[None], middle[None], right[None], noise)
    each = [law[0].log_softmax(dim=-1).gather(-1, middle[:, None]).double().sum() for law in laws[:2]]
    return {"autoregressive inside": -float(each[0]), "diffusion": -float(each[1])}


def kept_weights(path: Path) -> dict[str, Tensor]:
    """What `keep_weights` wrote."""
    return deserialize(storage.read_bytes(path, limit=STATE), path.name)


def keep_weights(path: Path, network: nn.Module) -> None:
    storage.write_bytes(path, serialize(network.state_dict()))


@cache
def texts_of(place: Path, kind: str = "dataset") -> TextSet:
    return data.load(place / kind)


@cache
def windows_of(place: Path, sizes: Sizes) -> Windows:
    return Windows.of(texts_of(place), sizes.context, sizes.windows, own_device())


@cache
def _ngrams(place: Path) -> NGramJudge:
    return NGramJudge(texts_of(place).texts["train"], 5)


@cache
def _words(place: Path) -> set[str]:
    return set(metrics.words(texts_of(place).texts["train"]))


@cache
def _second(place: Path, sizes: Sizes) -> Autoregressive:
    texts = texts_of(place, "characters")
    network = AutoregressiveObjective(sizes.model({}), texts, 1).model.to(own_device())
    network.load_state_dict(kept_weights(place / "judge.safetensors"))
    assert isinstance(network, Autoregressive)
    return network.eval()
