"""What each request means for images (`core.modality.Modality`)."""

from __future__ import annotations

import json
from pathlib import Path

from core.config import TrainConfig, validate
from core.errors import UserError
from core.images.config import ImageData, ImageEvaluate, ImageModel
from core.images.dataset import ImageDataset
from core.images.few_steps import FewStepsObjective
from core.images.model import ImageShape, TrainedModel, build_network, describe, save_model
from core.images.objective import ImageObjective
from core.images.sampling import sample, shard_drawer
from core.images.terms import equal_terms
from core.processes import world as distributed
from core.requests import EvaluateRequest, Facts, PrepareDataRequest, TrainJudgeRequest, TrainRequest
from core.storage.model_folder import DESCRIPTION, load_weights, read_description, read_weights
from core.training.fitting import Recipe, fit_into
from core.training.objective import Objective
from core.training.result import FitResult

__all__ = ["equal_terms", "evaluate", "prepare_data", "sample", "shard_drawer", "train", "train_judge"]


def prepare_data(request: PrepareDataRequest) -> Facts:
    """Reads, checks, splits and hashes the images."""
    from core.images import data

    return data.prepare_data(validate(ImageData, request.data, "data"), request.out, request.shards)


def train_judge(request: TrainJudgeRequest) -> Facts:
    """Trains the classifier that judges samples, on the real training split."""
    from core.images import judge

    return judge.train(validate(ImageEvaluate, request.evaluate, "evaluate"), request.dataset, request.out)


def train(request: TrainRequest) -> Facts:
    """Trains a diffusion model. Run again after a kill it goes on from its last checkpoint.

    Raises:
        UserError: the configuration does not suit the data.
    """
    if request.objective != "diffusion":
        raise UserError(f"objective: found {request.objective!r}; images allow: diffusion")
    config, settings = validate(ImageModel, request.model, "model"), validate(TrainConfig, request.train, "train")
    data = ImageDataset.open(request.dataset)
    shape, config = shape_of(data), config.with_deviation(float(data.metadata["std"]))
    train_split, validation_split = ((data.images(split), data.labels(split)) for split in ("train", "validation"))
    few = config.few_steps
    if few is not None and few.autoguidance != 1 and settings.guide_at is None:
        raise UserError(
            "model.few_steps.autoguidance: paths are guided by earlier weights; set train.guide_at, or this to 1"
        )
    first, later = (settings, settings) if few is None else settings.shared(few.share, few.rate)
    objective = ImageObjective(config, shape, train_split, validation_split, seed=settings.seed)
    if (start := request.warm_start) is not None:
        load_weights(objective.model, read_weights(start, read_description(start, "images")), str(start))

    def jumps(result: FitResult) -> tuple[Objective, TrainConfig]:
        guide = None
        if result.guide:
            guide = build_network(config, shape).to(result.device).eval().requires_grad_(False)
            guide.load_state_dict(result.guide)
        teacher = TrainedModel(result.model, objective.process, shape, config, {}, guide)
        return FewStepsObjective(teacher, result.device, settings.seed), later

    def save(folder: Path, result: FitResult, facts: Facts) -> Facts:
        return save_model(folder, result.model, config, shape, facts, result.guide)

    return fit_into(
        Recipe(
            request,
            first,
            objective,
            identity={"model": config.model_dump(mode="json")},
            data_sha256=data.metadata["content_sha256"],
            files={DESCRIPTION: json.dumps(describe(config, shape)).encode()},
            save=save,
            then=None if few is None else jumps,
        )
    )


def evaluate(request: EvaluateRequest) -> Facts:
    """Measures samples against training and test images: metrics.json, each metric with floor, count and judge."""
    from core.images import evaluation

    settings = validate(ImageEvaluate, request.evaluate, "evaluate")
    with distributed.world(distributed.LONG) as world:
        return evaluation.evaluate(
            settings, request.dataset, request.judge, request.model, request.samples, request.out, world
        )


def shape_of(data: ImageDataset) -> ImageShape:
    """Shape and classes of a data set."""
    height, width = data.shape[:2]
    return ImageShape(channels=data.channels, height=height, width=width, class_names=tuple(data.class_names))
