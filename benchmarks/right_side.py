"""What the text after a gap is worth at least: a model of character n-grams, summed over every middle there could be.

    python -m benchmarks.right_side --dataset FOLDER [--order 3] [--count 200]

The model is the judge's, counted on the training split. It reads `order` - 1 characters back, so of the right side only
as many say something, and the sum over all middles is exact: p(right | left) is the product of a vector and matrices.
A network that reads more can gain more. The cost of a character grows with the vocabulary to the power of the order.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.results import parser, publish
from core.randomness import generator_of
from core.text import data
from core.text.metrics import NGramJudge


def laws(judge: NGramJudge, letters: Sequence[str]) -> Tensor:
    """p(last | those before) of every n-gram of `letters`: float64, `order` dimensions of V."""
    contexts = map("".join, itertools.product(letters, repeat=judge.order - 1))
    rows = [[judge.probability(context, letter) for letter in letters] for context in contexts]
    return torch.tensor(rows, dtype=torch.float64).view([len(letters)] * judge.order)


def nats(table: Tensor, left: Sequence[int], middle: Sequence[int], right: Sequence[int]) -> tuple[float, float]:
    """Nats of the middle given the left side, and given both; a side is the order - 1 characters next to the gap."""
    past = table.dim() - 1
    text = [*left, *middle, *right]
    each = [float(table[tuple(text[i - past : i + 1])].log()) for i in range(past, len(text))]
    own, after = sum(each[: len(middle)]), sum(each[len(middle) :])
    state = torch.zeros(table.shape[1:], dtype=table.dtype)  # of the last order - 1 characters
    state[tuple(left)] = 1
    for _ in middle:
        state = (state[..., None] * table).sum(dim=0)
    for letter in right:
        reached = (state * table[..., letter]).sum(dim=0)
        state = torch.zeros_like(state)
        state[..., letter] = reached
    return -own, -(own + after - float(state.sum().log()))


def row(table: Tensor, text: Sequence[int], gap: int, count: int) -> dict[str, Any]:
    """One line of the table: means over `count` gaps at places that are drawn, and the error of their difference."""
    past = table.dim() - 1
    places = torch.randint(past, len(text) - gap - past, (count,), generator=generator_of("right side", gap)).tolist()
    pairs = [nats(table, text[i - past : i], text[i : i + gap], text[i + gap : i + gap + past]) for i in places]
    alone, both = (statistics.mean(values) / gap for values in zip(*pairs, strict=True))
    error = statistics.stdev(one - other for one, other in pairs) / gap / count**0.5
    return {
        "characters": gap,
        "left side": round(alone, 3),
        "both sides": round(both, 3),
        "gain": f"{alone - both:.3f} ± {error:.3f}",
        "share": f"{(alone - both) / alone:.1%}",
        "n": count,
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--dataset", type=Path, required=True, help="folder that prepare-data wrote")
    options.add_argument("--order", type=int, default=3, choices=(2, 3, 4), help="characters an n-gram spans")
    options.add_argument("--count", type=int, default=200, help="gaps of each length")
    chosen = options.parse_args()
    texts = data.load(chosen.dataset).texts
    letters = sorted(set("".join(texts.values())))
    table = laws(NGramJudge(texts["train"], chosen.order), letters)
    held_out = [letters.index(letter) for letter in texts["test"]]
    rows = [row(table, held_out, gap, chosen.count) for gap in (8, 16, 32)]
    title = f"Nats per character of a gap, character {chosen.order}-grams, all middles summed"
    publish("right-side", title, rows, chosen.out, lambda axes: _draw(axes, rows))


def _draw(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    for side in ("left side", "both sides"):
        axes.plot([one["characters"] for one in rows], [one[side] for one in rows], marker="o", label=side)
    axes.set_xlabel("characters of the gap")
    axes.set_ylabel("nats per character")
    axes.legend(frameon=False)


if __name__ == "__main__":
    main()
