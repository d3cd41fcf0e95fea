"""Filling gaps of held-out text by an autoregressive and a diffusion model together, over seeds.

    python -m benchmarks.fusion --model MODEL... --dataset FOLDER [--autoregressive MODEL] [--seeds 3] [--count 64]

A seed is a draw of the gaps; with several models (say, of other training seeds), also one of them.

Nats per character of the true middle, both sides given: by the autoregressive model alone (alpha = 0, w = 0), by its
drafts reranked by the text after the gap (an upper bound), by diffusion alone (alpha = 1), and at the best weight of
(A) the mix and (B) Bayes' rule, each chosen on the other seeds so that the choice is not judged on what it was made
from.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.results import parser, publish
from core.processes.world import own_device
from core.text import data
from core.text.config import TextEvaluate
from core.text.denoiser import Diffusion
from core.text.infilling import measure
from core.text.model import load_models

Curves = list[dict[str, Any]]  # one for each seed, of one length


def held_out(curves: Curves, name: str) -> list[float]:
    """For each seed the nats at the weight that is best on the other seeds."""
    found = []
    for index, curve in enumerate(curves):
        others = [other[name] for place, other in enumerate(curves) if place != index] or [curve[name]]
        totals = [sum(values) for values in zip(*others, strict=True)]
        found.append(curve[name][totals.index(min(totals))])
    return found


def row(span: int, curves: Curves) -> dict[str, Any]:
    """One line of the table: means over seeds, and on how many of them a fusion beats both models."""
    alone = [curve["nats_alpha"][0] for curve in curves]
    diffusion = [curve["nats_alpha"][-1] for curve in curves]
    mixed, bayes = held_out(curves, "nats_alpha"), held_out(curves, "nats_w")
    wins = sum(min(a, b) < min(x, y) for a, b, x, y in zip(mixed, bayes, alone, diffusion, strict=True))
    means = [sum(curve["nats_alpha"][i] for curve in curves) for i in range(len(curves[0]["alpha"]))]
    weights = [sum(curve["nats_w"][i] for curve in curves) for i in range(len(curves[0]["w"]))]
    return {
        "characters": span,
        "autoregressive": round(statistics.mean(alone), 3),
        "drafts reranked": round(statistics.mean(curve["reranked"] for curve in curves), 3),
        "diffusion": round(statistics.mean(diffusion), 3),
        "A: mix": round(statistics.mean(mixed), 3),
        "alpha": curves[0]["alpha"][means.index(min(means))],
        "B: Bayes": round(statistics.mean(bayes), 3),
        "w": curves[0]["w"][weights.index(min(weights))],
        "seeds won": f"{wins} of {len(curves)}",
        "n": sum(curve["characters"] for curve in curves),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", type=Path, nargs="+", required=True, help="folders of trained diffusion models")
    options.add_argument("--dataset", type=Path, required=True, help="folder that prepare-data wrote")
    options.add_argument("--autoregressive", type=Path, help="another autoregressive model; default: the one inside")
    options.add_argument("--seeds", type=int, default=3, help="draws of the gaps, of which each model gets its share")
    options.add_argument("--drafts", type=int, default=16, help="autoregressive drafts of a gap")
    options.add_argument("--count", type=int, default=64, help="gaps of each length and seed")
    chosen = options.parse_args()
    texts = data.load(chosen.dataset)
    weights = tuple(round(0.1 * step, 1) for step in range(13))
    by_span: dict[int, Curves] = {}
    for seed in range(max(chosen.seeds, len(chosen.model))):
        model = chosen.model[seed % len(chosen.model)]
        trained, other = load_models(model, chosen.autoregressive, own_device())
        assert isinstance(trained.network, Diffusion), "fusion needs a diffusion model"
        settings = TextEvaluate(seed=seed, span_count=chosen.count, weights=weights, drafts=chosen.drafts)
        _, measured = measure(trained.network, other or trained.network.autoregressive, texts, settings)
        for curve in (one.model_dump() for one in measured):
            inside = [place for place, alpha in enumerate(curve["alpha"]) if alpha <= 1]
            curve["alpha"] = [curve["alpha"][place] for place in inside]
            curve["nats_alpha"] = [curve["nats_alpha"][place] for place in inside]
            by_span.setdefault(curve["span"], []).append(curve)
    rows = [row(span, curves) for span, curves in by_span.items()]
    title = "Nats per character of the true middle, weights chosen on the other seeds"
    publish("fusion", title, rows, chosen.out, lambda axes: _draw(axes, by_span))


def _draw(axes: Any, by_span: dict[int, Curves]) -> None:
    for color, (span, curves) in zip(("#0f6b78", "#b3541e", "#5b4a9c"), by_span.items(), strict=False):
        for curve in curves:
            axes.plot(curve["w"], curve["nats_w"], color=color, label=f"{span} characters, Bayes")
            axes.plot(curve["alpha"], curve["nats_alpha"], color=color, linestyle="--", label=f"{span}, mix")
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes.legend(once.values(), once.keys(), frameon=False)
    axes.set_xlabel("alpha, w")
    axes.set_ylabel("nats per character")


if __name__ == "__main__":
    main()
