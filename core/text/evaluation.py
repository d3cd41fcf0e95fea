"""Samples against real text: every metric with its floor, and the curves of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.evaluation import Evaluation, JudgeFacts
from core.metrics import Metric, key_of
from core.processes import parts as parallel
from core.processes.world import SINGLE_PROCESS, World
from core.storage import integrity
from core.text import data, glossary, held_out, infilling, metrics
from core.text.autoregressive import Autoregressive
from core.text.config import TextEvaluate, TextSample
from core.text.data import TextSet
from core.text.denoiser import Diffusion
from core.text.frontier import frontier
from core.text.glossary import GLOSSARY
from core.text.long_text import LongText
from core.text.metrics import NGramJudge
from core.text.model import TrainedText
from core.text.objective import gamma_losses
from core.text.sampling import Writer

VERSION = 4  # of what the metrics mean and how texts are drawn; a change makes evaluation keys differ


def judge_description(judge: NGramJudge) -> dict[str, Any]:
    """What identifies the n-gram judge of a training text: it is rebuilt from both in seconds."""
    kind = "Witten-Bell character n-grams"
    return {"kind": kind, "order": judge.order, "sha256": judge.sha256, "n": judge.counted}


def load_judge(folder: Path, texts: TextSet) -> NGramJudge:
    """The judge of a data set.

    Raises:
        UserError: it was made from another text.
    """
    facts = integrity.read_json(folder / "judge.json")
    order = int(facts.get("order", 0))
    judge = NGramJudge(texts.long("train"), order) if order > 0 else None
    if judge is None or judge.sha256 != facts.get("sha256"):
        raise UserError(f"{folder}: the judge was not made from this data set; run train-judge again")
    return judge


def sample_metrics(
    rows: Sequence[dict[str, Any]], texts: TextSet, judge: NGramJudge, world: World = SINGLE_PROCESS
) -> dict[str, Metric]:
    """Metrics of unprompted samples for each mode; the floor is the same measure of as much real text.

    Reference of the n-grams is validation text, the floor's text is from the test split: like is compared with like.
    """
    measured: dict[str, Metric] = {}
    train = texts.long("train")
    unprompted = [row for row in rows if not row.get("prompt")]
    modes = sorted({str(row["mode"]) for row in unprompted}, key=lambda mode: (mode != "diffusion", mode))
    pairs: list[tuple[list[str], list[str]]] = []  # the texts, and the reference for their n-grams
    for mode in modes:
        made = [str(row["text"]) for row in unprompted if row["mode"] == mode]
        size = sum(map(len, made)) // max(1, len(made))
        reference = _pieces(texts.long("validation"), size, len(made))
        pairs += [(made, reference), (_pieces(texts.long("test"), size, len(made)), reference)]
    vocabulary = metrics.known_words(
        train, {word for made, _ in pairs for text in made for word in metrics.words(text)}
    )
    results = parallel.values(lambda i: metrics.measure(*pairs[i], train, vocabulary, judge), len(pairs), world)
    for mode, (made, _), values, floors in zip(modes, pairs[::2], results[::2], results[1::2], strict=True):
        for name, value in values.items():
            measured[name if mode == "diffusion" else f"{name}_{mode}"] = GLOSSARY[name].measured(
                round(value, 5),
                floor=round(floors[name], 5),
                n=sum(map(len, made)),
                judge=judge.sha256 if name == glossary.JUDGE_NLL.name else None,
            )
    return measured


def _pieces(text: str | LongText, size: int, count: int) -> list[str]:
    """Up to `count` pieces of `size` characters spread evenly over `text`, not overlapping."""
    whole = max(1, len(text) // max(1, size))
    count = min(count, whole)
    return [str(text[place * size : (place + 1) * size]) for place in (i * whole // count for i in range(count))]


def evaluate(
    settings: TextEvaluate,
    sampling: TextSample,
    rows: Sequence[dict[str, Any]],
    texts: TextSet,
    judge: NGramJudge,
    trained: TrainedText,
    other: Autoregressive | None,
    world: World = SINGLE_PROCESS,
) -> Evaluation:
    """The evaluation of sampled `rows`, in every process of `world`, which divide the work."""
    network, context = trained.network, trained.config.context
    measured = sample_metrics(rows, texts, judge, world)
    writer = Writer(trained, other, sampling, world.device)
    bits, likelihood = held_out.measure(writer, texts, settings, world)
    measured |= bits
    curves: dict[str, Any] = {"frontier": frontier(writer, judge, settings, world), "likelihood": likelihood}
    if isinstance(network, Diffusion):
        tokens = data.held_out(texts.tokens["test"], context, 32)
        curves["gamma_bins"] = gamma_losses(network, tokens, trained.config.block(None), world=world)
        infilled, curves["fusion"] = infilling.measure(network, other or network.autoregressive, texts, settings, world)
        measured |= infilled
    return Evaluation(
        modality="text",
        metrics=measured,
        sample=sampling.model_dump(mode="json"),
        count=len(rows),
        data_sha256=texts.metadata["content_sha256"],
        weights_sha256=trained.description["weights_sha256"],
        judge=JudgeFacts(sha256=judge.sha256),
        evaluation_key=evaluation_key(settings, sampling, texts, judge),
        **curves,
    )


def evaluation_key(settings: TextEvaluate, sampling: TextSample, texts: TextSet, judge: NGramJudge) -> str:
    """Equal for two evaluations whose numbers may be compared: same data, judge, sampling settings and measures."""
    return key_of(VERSION, texts.metadata, judge.sha256, sampling, settings)
