"""Texts that a service gave beside those that its model was measured by: their variety, and a judge's surprise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from core import storage
from core.errors import UserError
from core.metrics import Definition, Metric
from core.text import data, glossary, metrics
from core.text.evaluation import load_judge
from core.text.metrics import NGramJudge

LEAST = 16  # texts on a side, below which their spread says nothing
DRAWS = 50  # of the bootstrap


def compare(
    served: Path, samples: Path, dataset: Path, judge: Path
) -> tuple[dict[str, Metric], dict[str, Metric], int]:
    """Entropy and judge nats of both folders of texts, of equally many; and how many.

    Raises:
        UserError: a folder does not belong to this data set, or has too few texts.
    """
    texts = data.load(dataset)
    opened = load_judge(judge, texts)
    given, drawn = _texts(served), _texts(samples)
    n = min(len(given), len(drawn))
    if n < LEAST:
        raise UserError(f"{served}: {n} texts to compare on a side; {LEAST} are needed: wait, or raise --watch-keep")
    real = texts.texts["test"]
    first, second = (_watched(side[:n], real, opened) for side in (given, drawn))
    return first, second, n


def _texts(folder: Path) -> list[str]:
    """Unprompted texts of the model's own mode."""
    rows = storage.read_json_lines(folder / "samples.jsonl")
    own = [row for row in rows if isinstance(row, dict) and row.get("mode") == "diffusion" and not row.get("prompt")]
    return [str(row["text"]) for row in own if row.get("text")]


def _watched(texts: Sequence[str], real: str, judge: NGramJudge) -> dict[str, Metric]:
    """Both metrics with standard errors over texts; the floor is that of as much real text."""
    floor = real[: sum(map(len, texts))]
    nats = np.array([judge.nats_per_character([text]) for text in texts])
    sizes = np.array([len(text) for text in texts])

    def surprise(rows: np.ndarray) -> float:
        return float((nats[rows] * sizes[rows]).sum() / sizes[rows].sum())

    def variety(rows: np.ndarray) -> float:
        return metrics.entropy("".join(texts[row] for row in rows))

    def measured(definition: Definition, value: Callable[[np.ndarray], float], best: float) -> Metric:
        draws = np.random.Generator(np.random.Philox(0)).integers(len(texts), size=(DRAWS, len(texts)))
        spread = float(np.std([value(rows) for rows in draws], ddof=1))
        return definition.measured(
            value(np.arange(len(texts))), se=spread, floor=best, n=int(sizes.sum()), judge=judge.sha256
        )

    return {
        glossary.JUDGE_NLL.name: measured(glossary.JUDGE_NLL, surprise, judge.nats_per_character([floor])),
        glossary.ENTROPY.name: measured(glossary.ENTROPY, variety, metrics.entropy(floor)),
    }
