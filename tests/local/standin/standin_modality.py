"""Image steps that take no time: a "model" is one number, its quality, and samples are as good as the model.

What they do is steered by settings that mean something else in earnest: `train.learning_rate` becomes the quality,
`data.limit` 13 is data that cannot be used, `sample.seed` 666 is a bug, `train.seed` 99 takes a long time; a learning
rate above 5 diverges, and one of 4 with a clip of 13 and 64 examples is killed once, as is drawing sample 10 of
seed 13.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.progress import Progress
from core.requests import (
    EvaluateRequest,
    Facts,
    PrepareDataRequest,
    SampleRequest,
    Section,
    ShardDrawer,
    ShardRequest,
    TrainJudgeRequest,
    TrainRequest,
)


def _write(folder: Path, **files: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def prepare_data(request: PrepareDataRequest) -> Facts:
    data, out = request.data, request.out
    if data.get("limit") == 13:
        raise UserError("data.limit: found 13; allowed: lucky numbers")
    facts = {"modality": "images", "content_sha256": _hash(data), "counts": {"train": 3}}
    _write(out, dataset=facts)
    return {"content_sha256": facts["content_sha256"], "train_count": 3}


def train_judge(request: TrainJudgeRequest) -> Facts:
    _write(request.out, judge={"sha256": _hash(request.evaluate)})
    return {"judge_sha256": _hash(request.evaluate)}


def train(request: TrainRequest) -> Facts:
    train, work = request.train, request.work
    root = os.environ["TEXTDIFFUSION_WORK"] if not work or "://" in work else work
    place = Path(root, _hash(train))
    place.mkdir(parents=True, exist_ok=True)
    begun = (place / "begun").exists()
    (place / "begun").write_text(str(os.getpid()))
    print("train: 0/10 examples", flush=True)
    with Progress("train", 10, "examples") as progress:
        for done in range(10):
            progress.update(done + 1, loss=1.0 / (done + 1))
            if train["seed"] == 99 and not begun:
                time.sleep(60)
    if train["learning_rate"] > 5:
        raise UserError("train: diverged: lower train.learning_rate")
    if (train["learning_rate"], train.get("clip"), train.get("examples")) == (4, 13, 64) and not begun:
        os.kill(os.getpid(), 9)
    facts = {"quality": train["learning_rate"], "weights_sha256": _hash(train), "modality": "images"}
    _write(request.out, model=facts)
    found = {"weights_sha256": facts["weights_sha256"], "examples_seen": 512, "device": "cpu", "resumed": begun}
    return found | {"validation_loss": 1.0 / train["learning_rate"]}


def sample(request: SampleRequest) -> Facts:
    sample = request.sample
    if sample["seed"] == 666:
        raise RuntimeError("a bug in sampling")
    quality = json.loads((request.model / "model.json").read_text())["quality"]
    _write(request.out, sample={"quality": quality, "steps": sample["steps"]})
    return {"samples_sha256": _hash([quality, sample])}


def shard_drawer(request: ShardRequest) -> ShardDrawer:
    work = Path(os.environ["TEXTDIFFUSION_WORK"])
    work.mkdir(exist_ok=True)

    def draw(start: int, stop: int) -> bytes:
        begun = (work / f"draw-{start}").exists()
        with (work / f"draw-{start}").open("a") as log:
            log.write("drawn\n")
        if request.sample["seed"] == 13 and start == 10 and not begun:
            os.kill(os.getpid(), 9)
        return "".join(f"{number}\n" for number in range(start, stop)).encode()

    return ShardDrawer(draw, ".txt", {"seed": request.sample["seed"]})


def equal_terms(champion: Path, challenger: Path, dataset: Path, sample: Section) -> Section:
    return sample


def evaluate(request: EvaluateRequest) -> Facts:
    evaluate = request.evaluate
    facts = json.loads((request.samples / "sample.json").read_text())
    distance = 1.0 / facts["quality"] + 1.0 / facts["steps"]
    if evaluate["judge_seed"] == 7:
        distance = float("nan")
    data = json.loads((request.dataset / "dataset.json").read_text())["content_sha256"]
    entry = {"value": distance, "floor": 0.1, "n": 40, "judge": _hash(evaluate), "better": "lower"}
    _write(
        request.out,
        metrics={"frechet_distance": entry},
        evaluation={"evaluation_key": _hash([data, evaluate, facts["steps"]])},
    )
    return {"frechet_distance": distance if distance == distance else None}
