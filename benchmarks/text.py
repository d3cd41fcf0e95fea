"""Text models at equal training time: the original, n-gram floors, masks, autoregressive, diffusion and its ablations.

    python -m benchmarks.text --data_dir FILE --minutes 3 [--only diffusion,masked] [--work FOLDER]

Prints one table; each row is trained on the same split and judged by the same code as a job. A warm-started row spends
two fifths of its minutes on the autoregressive model it begins from. Minutes become examples by speeds measured first,
one kind of training after the other, so that nothing which slows the machine later changes a row. With --work a run
that was interrupted goes on where it was, and its models stay.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import parser, publish, work_folder
from core import storage
from core.metrics import Metric
from core.modality import run_here
from core.processes.world import SINGLE_PROCESS, own_device
from core.requests import PrepareDataRequest, SampleRequest, Section, TrainRequest
from core.text import data, evaluation, held_out
from core.text.autoregressive import Autoregressive
from core.text.config import TextEvaluate, TextSample
from core.text.data import TextSet
from core.text.glossary import AUTOREGRESSIVE_BITS, BOUND
from core.text.metrics import NGramJudge
from core.text.model import load_model
from core.text.sampling import Writer
from core.training.log import TrainingLog

SHARED: dict[str, Any] = {
    "batch_size": 8,
    "optimizer": "muon",
    "learning_rate": 2e-3,
    "weight_decay": 0.05,
    "warmup_examples": 400,
    "validate_every": 0.5,
    "preview_every": 1.0,
}
WARM_SHARE = 0.4
SPEED_EXAMPLES = 640  # a speed is the median over windows of 20 steps, the first left out
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
    tokens, size = texts.tokens["train"].long(), texts.tokenizer.size
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


def judged(made: list[str], texts: TextSet, judge: NGramJudge) -> dict[str, Metric]:
    rows = [{"mode": "diffusion", "prompt": "", "text": text} for text in made]
    return evaluation.sample_metrics(rows, texts, judge)


def train_text(model: Section, train: Section, dataset: Path, out: Path, **more: Any) -> None:
    run_here(TrainRequest(modality="text", model=model, train=train, dataset=dataset, out=out, **more))


def speed(name: str, dataset: Path, place: Path) -> float:
    """Examples a second of a row's last training."""
    objective, _, model, train, _ = ROWS[name]
    settings = {**SHARED, **train}
    settings["examples"] = SPEED_EXAMPLES * settings["batch_size"] // SHARED["batch_size"]
    train_text({"process": model}, settings, dataset, place, objective=objective, work=f"{place}.work")
    log = TrainingLog.parse((place / "train_log.jsonl").read_bytes())
    return statistics.median([row["rate"] for row in log if "rate" in row][1:])


def trained(name: str, minutes: float, speeds: dict[str, float], dataset: Path, place: Path) -> Path:
    """The model of one row of the table."""
    objective, warm, model, train, _ = ROWS[name]
    config, settings, start = {"process": model}, {**SHARED, **train}, None
    seconds = 60 * minutes

    def examples(row: str, share: float) -> dict[str, Any]:
        return {**settings, "examples": round(seconds * share * speeds[row])}

    if warm:  # rows whose start is trained alike share it
        start = place.parent / f"start-{settings['optimizer']}"
        first = examples("autoregressive", WARM_SHARE) | {"batch_size": SHARED["batch_size"]}
        train_text({}, first, dataset, start, objective="autoregressive", work=str(place.parent))
    last = examples(name, 1 - WARM_SHARE if warm else 1)
    train_text(config, last, dataset, place / "model", objective=objective, work=str(place), warm_start=start)
    return place / "model"


def drawn(name: str, model: Path, out: Path) -> list[str]:
    """48 texts of a row's model."""
    section = {"count": 48, "modes": ["diffusion"], **ROWS[name][4]}
    run_here(SampleRequest(modality="text", sample=section, model=model, out=out))
    return [row["text"] for row in storage.read_json_lines(out / "samples.jsonl")]


def bits(name: str, model: Path, texts: TextSet) -> float | None:
    """Bits per character of held-out text: exact for the autoregressive model, a bound for the others."""
    found = load_model(model, own_device())
    other = found.network if isinstance(found.network, Autoregressive) else None
    writer = Writer(found, other, TextSample.model_validate(ROWS[name][4]), own_device())
    measured, _ = held_out.measure(writer, texts, TextEvaluate(evaluations_per_token=()), SINGLE_PROCESS)
    values = [measured[one.name].value for one in (BOUND, AUTOREGRESSIVE_BITS) if one.name in measured]
    return round(values[0], 3) if values and values[0] is not None else None


def row(name: str, values: dict[str, Metric], key: str, **more: Any) -> dict[str, Any]:
    return {"": name, **{column: round(getattr(values[column], key), 3) for column in COLUMNS}, **more}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--source", default="shakespeare", choices=["shakespeare", "pydoc"])
    options.add_argument("--minutes", type=float, default=3.0, help="training minutes of each row")
    options.add_argument("--only", help="rows, separated by commas; default: all")
    options.add_argument("--work", type=Path, help="folder in which models stay; default: a temporary one")
    chosen = options.parse_args()
    names = chosen.only.split(",") if chosen.only else list(ROWS)
    with work_folder(chosen.work) as place:
        source = {"source": chosen.source, "data_dir": chosen.data_dir, "tokenizer": {"vocabulary": 1024}}
        run_here(PrepareDataRequest(modality="text", data=source, out=place / "dataset"))
        texts = data.load(place / "dataset")
        speeds = measured_speeds(names, place)
        judge = NGramJudge(texts.texts["train"], 5)
        floors = [judged(ngram_texts(texts, order, 128, 48), texts, judge) for order in (1, 2)]
        rows = [
            row("real text (test split)", floors[0], "floor"),
            row("token unigrams", floors[0], "value"),
            row("token bigrams", floors[1], "value"),
        ]
        for name in names:
            work = place / name.replace(" ", "-")
            model = trained(name, chosen.minutes, speeds, place / "dataset", work)
            more = {"bits/char": bits(name, model, texts), "tokens/s": round(speeds[name] * 128)}
            rows.append(row(name, judged(drawn(name, model, work / "samples"), texts, judge), "value", **more))
            print(rows[-1], flush=True)
        rows[0] |= {"bits/char": None, "tokens/s": None}
        publish("text", f"{chosen.source}, {chosen.minutes:g} training minutes each", rows, chosen.out)


def measured_speeds(names: list[str], place: Path) -> dict[str, float]:
    """Examples a second of every row and of the autoregressive start, kept for when the run goes on."""
    path = place / "speeds.json"
    found: dict[str, float] = storage.read_json(path) if path.exists() else {}
    for name in dict.fromkeys(["autoregressive", *names]):
        if name not in found:
            found[name] = speed(name, place / "dataset", place / f"speed-{len(found)}")
            storage.write_json(path, found)
    return found


if __name__ == "__main__":
    main()
