"""What each request means for text (`core.modality.Modality`)."""

from __future__ import annotations

import json
import time
from pathlib import Path

from core import storage
from core.config import TrainConfig, validate
from core.errors import UserError
from core.evaluation import SAMPLING, Sampling
from core.processes import world as distributed
from core.requests import EvaluateRequest, Facts, PrepareDataRequest, SampleRequest, TrainJudgeRequest, TrainRequest
from core.storage import integrity
from core.storage.model_folder import DESCRIPTION
from core.text import data, evaluation
from core.text.config import TextData, TextEvaluate, TextModel, TextSample
from core.text.metrics import NGramJudge
from core.text.model import TOKENIZER, begin_from, describe, load_model, load_models, save_model
from core.text.objective import OBJECTIVES
from core.text.sampling import Writer, shard_drawer
from core.text.terms import equal_terms
from core.training.fitting import Recipe, fit_into
from core.training.result import FitResult

__all__ = ["equal_terms", "evaluate", "prepare_data", "sample", "shard_drawer", "train", "train_judge"]


def prepare_data(request: PrepareDataRequest) -> Facts:
    """Reads, checks, splits, tokenizes and hashes the text."""
    return data.prepare(validate(TextData, request.data, "data"), request.out)


def train_judge(request: TrainJudgeRequest) -> Facts:
    """Describes the n-gram judge of the training split, with its surprise at held-out text."""
    settings = validate(TextEvaluate, request.evaluate, "evaluate")
    texts = data.load(request.dataset)
    judge = NGramJudge(texts.long("train"), settings.judge_order)
    facts = evaluation.judge_description(judge) | {
        "validation_nats_per_character": round(judge.nats_per_character([str(texts.long("validation")[:20_000])]), 5),
        "content_sha256": texts.metadata["content_sha256"],
    }
    with storage.atomic_folder(request.out, "judge.json") as folder:
        integrity.write_json(folder / "judge.json", facts)
    return facts


def train(request: TrainRequest) -> Facts:
    """Trains a model. Run again after a kill it goes on from its last checkpoint.

    A warm start is a trained model of the same tokens; for diffusion usually the autoregressive one.

    Raises:
        UserError: the configuration does not suit the data.
    """
    name, start = request.objective, request.warm_start
    if name not in OBJECTIVES:
        raise UserError(f"objective: found {name!r}; text allows: {', '.join(OBJECTIVES)}")
    config, settings = validate(TextModel, request.model, "model"), validate(TrainConfig, request.train, "train")
    if settings.guide_at is not None:
        raise UserError("train.guide_at: only sampling of images is guided by earlier weights; leave it out for text")
    texts = data.load(request.dataset)
    objective = OBJECTIVES[name](config, texts, settings.seed)
    if start is not None:
        begin_from(objective.model, start, texts.tokenizer)

    def save(folder: Path, result: FitResult, facts: Facts) -> Facts:
        return save_model(folder, result.model, name, config, texts.tokenizer, facts)

    def more(result: FitResult) -> Facts:
        before = float(load_model(start).description.get("total_seconds", 0)) if start else 0.0
        return {
            "total_seconds": round(result.seconds + before, 1),  # with the model that it began from
            "warm_start": start is not None,
            "characters_per_token": round(texts.characters_per_token, 4),
        }

    facts = fit_into(
        Recipe(
            request,
            settings,
            objective,
            identity={"objective": name, "model": config.model_dump(mode="json")},
            data_sha256=texts.metadata["content_sha256"],
            files={
                DESCRIPTION: json.dumps(describe(name, config, texts.tokenizer)).encode(),
                TOKENIZER: json.dumps(texts.tokenizer.to_json()).encode(),
            },
            save=save,
            facts=more,
            name=f"train {name}",
        )
    )
    return {"objective": name, **facts}


def sample(request: SampleRequest) -> Facts:
    """Draws texts of every mode: samples.jsonl, trajectory.jsonl and sample.json.

    Raises:
        UserError: the model is damaged, or the settings ask for what it cannot do.
    """
    settings = validate(TextSample, request.sample, "sample")
    with distributed.world(distributed.LONG) as world:
        trained, other = load_models(request.model, request.autoregressive, world.device)
        writer = Writer(trained, other, settings, world.device)
        began = time.monotonic()
        rows, frames = writer.rows(world)
        drawn = Sampling(
            sampler=settings.sampler,
            steps=settings.steps,
            nfe=-(-writer.length // writer.block) * settings.steps * (2 if settings.guidance != 1 else 1),
            guidance=settings.guidance,
            temperature=settings.temperature,
            block=writer.block,
            seed=settings.seed,
            count=len(rows),
            seconds=round(time.monotonic() - began, 2),
            device=str(world.device),
            processes=world.size,
            weights_sha256=trained.description["weights_sha256"],
            settings=settings.model_dump(mode="json"),
        )

        def publish() -> Facts:
            with storage.atomic_folder(request.out, "sample.json") as folder:
                storage.write_json_lines(folder / "samples.jsonl", rows)
                if frames:
                    storage.write_json_lines(folder / "trajectory.jsonl", frames)
                drawn.write(folder)
            return drawn.facts()

        return distributed.by_first(publish, world)


def evaluate(request: EvaluateRequest) -> Facts:
    """Measures samples against held-out text: metrics.json, each metric with floor, count and judge; the curves."""
    samples = request.samples
    settings = validate(TextEvaluate, request.evaluate, "evaluate")
    texts = data.load(request.dataset)
    with distributed.world(distributed.LONG) as world:
        trained, other = load_models(request.model, request.autoregressive, world.device)
        ngrams = evaluation.load_judge(request.judge, texts)
        sampling = Sampling.read(samples)
        drawn = validate(TextSample, sampling.settings or None, f"{samples / SAMPLING}: settings")
        rows = storage.read_json_lines(samples / "samples.jsonl")
        own = texts.retokenized(trained.tokenizer, ("test",))  # measures are in characters, whatever the tokens
        measured = evaluation.evaluate(settings, drawn, rows, own, ngrams, trained, other, world)
        measured = measured.model_copy(update={"evaluations": sampling.nfe})

        def publish() -> Facts:
            with storage.atomic_folder(request.out, "metrics.json") as folder:
                measured.write(folder)
            return measured.metadata()

        return distributed.by_first(publish, world)
