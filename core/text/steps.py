"""The steps of a text pipeline: folders in, a folder out. See core/steps.py for what calls them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from core import storage
from core.config import TrainConfig, validate
from core.errors import UserError
from core.processes import world as distributed
from core.records import Drawn, read
from core.records import facts as facts_of
from core.storage import integrity
from core.storage.model_folder import DESCRIPTION
from core.text import data, evaluation
from core.text.autoregressive import NextToken
from core.text.config import GAP, TextData, TextEvaluate, TextModel, TextSample
from core.text.metrics import NGramJudge
from core.text.model import TOKENIZER, TrainedText, begin_from, describe, load_autoregressive, load_model, save_model
from core.text.objective import OBJECTIVES
from core.text.sampling import Sampler
from core.training.fitting import fit_into
from core.training.loop import FitResult

Section = Mapping[str, Any]


def prepare_data(data: Section, out: Path) -> dict[str, Any]:
    """Reads, checks, splits, tokenizes and hashes the text that `data` names into the folder `out`."""
    from core.text.data import prepare

    return prepare(validate(TextData, data, "data"), out)


def train_judge(evaluate: Section, dataset: Path, out: Path) -> dict[str, Any]:
    """Describes the n-gram judge of the training split, with its surprise at held-out text."""
    settings = validate(TextEvaluate, evaluate, "evaluate")
    texts = data.load(dataset)
    judge = NGramJudge(texts.texts["train"], settings.judge_order)
    facts = evaluation.judge_description(texts.texts["train"], settings.judge_order) | {
        "validation_nats_per_character": round(judge.nats_per_character([texts.texts["validation"][:20_000]]), 5),
        "content_sha256": texts.metadata["content_sha256"],
    }
    with storage.atomic_folder(out) as folder:
        integrity.write_json(folder / "judge.json", facts)
    return facts


def train(
    model: Section,
    train: Section,
    dataset: Path,
    out: Path,
    *,
    objective: str = "diffusion",
    work: str | None = None,
    warm_start: Path | None = None,
) -> dict[str, Any]:
    """Trains a model of the text in `dataset` into the model folder `out`.

    Checkpoints go to `<work>/<key of what is trained>`; `work` defaults to TEXTDIFFUSION_WORK, then to a folder
    beside `out`. Run again after a kill it goes on from there.

    Args:
        objective: diffusion, autoregressive, masked or original.
        warm_start: a trained model to begin from; for diffusion usually the autoregressive one.

    Raises:
        UserError: the configuration does not suit the data.
    """
    if objective not in OBJECTIVES:
        raise UserError(f"objective: found {objective!r}; text allows: {', '.join(OBJECTIVES)}")
    config, settings = validate(TextModel, model, "model"), validate(TrainConfig, train, "train")
    if settings.guide_at is not None:
        raise UserError("train.guide_at: only sampling of images is guided by earlier weights; leave it out for text")
    texts = data.load(dataset)
    torch.manual_seed(settings.seed)  # fresh weights are a function of the seed
    goal = OBJECTIVES[objective](config, texts, settings.seed)
    if warm_start is not None:
        begin_from(goal.model, warm_start, texts.tokenizer)
    beside = {
        DESCRIPTION: json.dumps(describe(objective, config, texts.tokenizer)).encode(),
        TOKENIZER: json.dumps(texts.tokenizer.to_json()).encode(),
    }

    def save(folder: Path, result: FitResult, facts: dict[str, Any]) -> dict[str, Any]:
        return save_model(folder, result.model, objective, config, texts.tokenizer, facts)

    def more(result: FitResult) -> dict[str, Any]:
        before = float(load_model(warm_start).description.get("total_seconds", 0)) if warm_start else 0.0
        return {
            "total_seconds": round(result.seconds + before, 1),  # with the model that it began from
            "warm_start": warm_start is not None,
            "characters_per_token": round(texts.characters_per_token, 4),
        }

    facts = fit_into(
        out,
        goal,
        settings,
        save,
        data_sha256=texts.metadata["content_sha256"],
        identity={"objective": objective, "model": config.model_dump(mode="json")},
        beside=beside,
        work=work,
        warm_start=warm_start,
        name=f"train {objective}",
        more=more,
    )
    return {"objective": objective, **facts}


def sample(
    sample: Section, model: Path, out: Path, *, autoregressive: Path | None = None, **_: object
) -> dict[str, Any]:
    """Draws texts of every mode: samples.jsonl, trajectory.jsonl and sample.json in `out`.

    Raises:
        UserError: the model is damaged, or the settings ask for what it cannot do.
    """
    settings = validate(TextSample, sample, "sample")
    with distributed.world(distributed.LONG) as world:
        trained, other = _models(model, autoregressive, world.device)
        sampler = Sampler(trained, other, settings, world.device)
        began = time.monotonic()
        rows, frames = sampler.rows(world)
        blocks = -(-sampler.length // sampler.block)
        facts = {
            "sampler": settings.sampler,
            "steps": settings.steps,
            "block": sampler.block,
            "nfe": blocks * settings.steps * (2 if settings.guidance != 1 else 1),
            "temperature": settings.temperature,
            "guidance": settings.guidance,
            "seed": settings.seed,
            "count": len(rows),
            "seconds": round(time.monotonic() - began, 2),
            "device": str(world.device),
            "processes": world.size,
            "weights_sha256": trained.description["weights_sha256"],
        }

        def write() -> dict[str, Any]:
            with storage.atomic_folder(out) as folder:
                storage.write_json_lines(folder / "samples.jsonl", rows)
                if frames:
                    storage.write_json_lines(folder / "trajectory.jsonl", frames)
                storage.write_json(folder / "sample.json", {**facts, "settings": settings.model_dump(mode="json")})
            return facts

        return distributed.by_first(write, world)


def write(
    sample: Section,
    model: Path,
    prompt: str,
    *,
    autoregressive: Path | None = None,
    watch: Callable[[float, list[str]], None] | None = None,
) -> list[dict[str, Any]]:
    """Texts by diffusion for one prompt, as rows of samples.jsonl: new ones, continued ones, or with ___ filled in.

    Args:
        sample: the section `sample`; `count` texts are written.
        model: model folder.
        prompt: empty for none.
        autoregressive: the autoregressive model's folder, if there is one.
        watch: is called with the noise level gamma and the texts as they are then, at every evaluation.

    Raises:
        UserError: the model is damaged, or the settings ask for what it cannot do.
    """
    asked = {"modes": ["infill" if GAP in prompt else "diffusion"], "prompts": [prompt] if prompt else []}
    settings = validate(TextSample, {**sample, **asked}, "sample")
    device = distributed.own_device()
    sampler = Sampler(*_models(model, autoregressive, device), settings, device)
    sampler.require_modes()

    def show(gamma: float, tokens: torch.Tensor) -> None:
        if watch is not None:
            watch(gamma, [sampler.trained.tokenizer.decode(row) for row in tokens.tolist()])

    if GAP in prompt:
        return sampler.filled("infill", prompt, settings.count, 0, show)
    return sampler.continued("diffusion", prompt, settings.count, 0, show)


def evaluate(
    evaluate: Section,
    dataset: Path,
    judge: Path,
    model: Path,
    samples: Path,
    out: Path,
    *,
    autoregressive: Path | None = None,
    **_: object,
) -> dict[str, Any]:
    """Measures samples against held-out text: metrics.json, each metric with floor, count and judge; the curves."""
    settings = validate(TextEvaluate, evaluate, "evaluate")
    texts = data.load(dataset)
    with distributed.world(distributed.LONG) as world:
        trained, other = _models(model, autoregressive, world.device)
        if trained.tokenizer.to_json() != texts.tokenizer.to_json():
            raise UserError(f"{model}: its tokenizer is not the data set's; evaluate on the data it was trained on")
        ngrams, judge_sha256 = evaluation.load_judge(judge, texts)
        sampling = facts_of(read(Drawn, str(samples / "sample.json")))
        drawn = validate(TextSample, sampling.get("settings"), f"{samples / 'sample.json'}: settings")
        rows = storage.read_json_lines(samples / "samples.jsonl")
        found, facts = evaluation.evaluate(settings, drawn, rows, texts, ngrams, judge_sha256, trained, other, world)
        facts["sample"] = drawn.model_dump(mode="json")
        facts["sampling"] = {name: value for name, value in sampling.items() if name != "settings"}

        def write() -> dict[str, Any]:
            with storage.atomic_folder(out) as folder:
                storage.write_json(folder / "metrics.json", found)
                storage.write_json(folder / "evaluation.json", facts)
            return {name: entry["value"] for name, entry in found.items()}

        return distributed.by_first(write, world)


def _models(model: Path, autoregressive: Path | None, device: torch.device) -> tuple[TrainedText, NextToken | None]:
    """A trained model and, if there is a folder of one, the autoregressive model beside it."""
    trained = load_model(model, device)
    return trained, load_autoregressive(autoregressive, trained, device) if autoregressive else None
