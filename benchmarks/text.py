"""Text models at equal training time: the original, n-gram floors, masks, autoregressive, diffusion and its ablations.

    python -m benchmarks.text --data_dir FILE --minutes 3 [--only diffusion,masked]

Prints one table; each row is trained on the same split and judged by the same code as a job. A warm-started row spends
two fifths of its minutes on the autoregressive model it begins from.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import parser, publish
from core.text import data, evaluation, steps
from core.text.data import TextSet
from core.text.metrics import NGramJudge

SHARED = {"batch_size": 8, "optimizer": "muon", "learning_rate": 2e-3, "weight_decay": 0.05, "warmup_examples": 400}
WARM_SHARE = 0.4
COLUMNS = ("word_validity", "word_validity_4", "js_2", "js_4", "entropy", "judge_nll", "longest_copy")
# name: (objective, warm start, changes to the model, to the training, to the sampling)
ROWS: dict[str, tuple[str, bool, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "original": ("original", False, {}, {"optimizer": "adamw"}, {"steps": 200}),
    "masked": ("masked", False, {}, {}, {"steps": 128}),
    "autoregressive": ("autoregressive", False, {}, {}, {}),
    "diffusion": ("diffusion", True, {}, {}, {}),
    "cold start": ("diffusion", False, {}, {}, {}),
    "no tilt": ("diffusion", True, {"tilt": [0, 0]}, {}, {}),
    "no tilt, whole context": ("diffusion", True, {"tilt": [0, 0], "blocks": [128]}, {}, {"steps": 128}),
    "no output prior": ("diffusion", True, {"output_prior": False}, {}, {}),
    "no self-conditioning": ("diffusion", True, {"self_conditioning": 0.0}, {}, {}),
    "uniform gamma": ("diffusion", True, {"warp_uniform": 1.0}, {}, {}),
    "no clean-stream loss": ("diffusion", True, {"autoregressive_weight": 0.0}, {}, {}),
    "AdamW": ("diffusion", True, {}, {"optimizer": "adamw"}, {}),
    "batch 32": ("diffusion", True, {}, {"batch_size": 32}, {}),
}


def ngram_texts(texts: TextSet, order: int, length: int, count: int) -> list[str]:
    """Texts drawn from token unigrams (order 1) or bigrams (2) of the training split: what no network has to learn."""
    tokens, size = texts.tokens["train"], texts.tokenizer.size
    draws = torch.Generator().manual_seed(0)
    table = torch.bincount(tokens, minlength=size).float().expand(size, -1)
    if order == 2:
        table = torch.bincount(tokens[:-1] * size + tokens[1:], minlength=size**2).float().view(size, size)
    ids = [tokens[torch.randint(len(tokens), (count,), generator=draws)]]
    while len(ids) < length:
        law = table[ids[-1]]
        law = torch.where(law.sum(dim=1, keepdim=True) > 0, law, torch.ones_like(law))
        ids.append(torch.multinomial(law, 1, generator=draws)[:, 0])
    return [texts.tokenizer.decode(row) for row in torch.stack(ids, dim=1).tolist()]


def judged(made: list[str], texts: TextSet, judge: NGramJudge) -> dict[str, dict[str, Any]]:
    rows = [{"mode": "diffusion", "prompt": "", "text": text} for text in made]
    return evaluation.sample_metrics(rows, texts, judge, "")


def trained(name: str, minutes: float, dataset: Path, place: Path) -> list[str]:
    """Texts of one row of the table."""
    objective, warm, model, train, sample = ROWS[name]
    settings = {**SHARED, **train, "minutes": minutes * (1 - WARM_SHARE if warm else 1)}
    config = {"process": model}
    start = None
    if warm:
        start = place / "start"
        first = {**settings, "minutes": minutes * WARM_SHARE}
        steps.train(config, first, dataset, start, objective="autoregressive", work=str(place))
    steps.train(config, settings, dataset, place / "model", objective=objective, work=str(place), warm_start=start)
    asked = {"count": 48, "modes": ["diffusion"], **sample}
    steps.sample(asked, place / "model", place / "samples")
    rows = (place / "samples" / "samples.jsonl").read_text().splitlines()
    return [json.loads(row)["text"] for row in rows]


def row(name: str, values: dict[str, Any], key: str) -> dict[str, Any]:
    return {"": name, **{column: round(values[column][key], 3) for column in COLUMNS}}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--source", default="shakespeare", choices=["shakespeare", "pydoc"])
    options.add_argument("--minutes", type=float, default=3.0, help="training minutes of each row")
    options.add_argument("--only", help="rows, separated by commas; default: all")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        source = {"source": chosen.source, "data_dir": chosen.data_dir, "tokenizer": {"vocabulary": 1024}}
        steps.prepare_data(source, place / "dataset")
        texts = data.load(place / "dataset")
        judge = NGramJudge(texts.texts["train"], 5)
        floors = [judged(ngram_texts(texts, order, 128, 48), texts, judge) for order in (1, 2)]
        rows = [
            row("real text (test split)", floors[0], "floor"),
            row("token unigrams", floors[0], "value"),
            row("token bigrams", floors[1], "value"),
        ]
        for name in chosen.only.split(",") if chosen.only else ROWS:
            work = place / name.replace(" ", "-")
            rows.append(
                row(name, judged(trained(name, chosen.minutes, place / "dataset", work), texts, judge), "value")
            )
            print(rows[-1], flush=True)
        publish("text", f"{chosen.source}, {chosen.minutes:g} training minutes each", rows, chosen.out)


if __name__ == "__main__":
    main()
