"""Image diffusion against its peers on the same data and cores: training speed, then quality after equal minutes.

    python -m benchmarks.images --data_dir FOLDER --minutes 5 --count 1000 [--only ours,diffusers] [--work FOLDER]

Speeds alternate between contenders, round after round, and are medians; so a busy machine slows all of them. GFLOP are
counted by torch over a forward and backward pass. Fréchet distance, accuracy and floor are of one judge, at one count.
With --work what was trained stays there, and a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import BATCH, Budget, Choice, Contender, Ours, Trained
from benchmarks.devices import synchronize
from benchmarks.peers import tutorials
from benchmarks.results import parser, publish, work_folder
from core.images import metrics
from core.images.dataset import ImageDataset
from core.images.judge import Answers, Judge
from core.modality import run_here
from core.processes.world import own_device
from core.requests import PrepareDataRequest, TrainJudgeRequest


def speeds(
    field: Sequence[Contender], dataset: Path, rounds: int, size: int, choice: Choice | None = None
) -> dict[str, float]:
    """Images a second of each contender: the median over rounds of `size` steps; the first round only warms up."""
    found: dict[str, list[float]] = {one.name: [] for one in field}
    for turn in range(rounds + 1):
        for one in field:
            trained = one.train(dataset, Budget(examples=size * (choice.batch if choice else BATCH)), None, choice)
            if turn:
                found[one.name].append(trained.examples / trained.seconds)
    return {name: statistics.median(values) for name, values in found.items()}


def cost(one: Contender, data: ImageDataset) -> tuple[int, float]:
    """Parameters, and GFLOP of training on one image (forward and backward)."""
    one = copy.deepcopy(one)  # a peer's schedule moves to where its images are
    network = one.network(data).to("meta")  # without numbers, so that no kernel hides its products from the counter
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        images, labels = torch.zeros(2, 1, *data.shape[:2]), torch.zeros(2, dtype=torch.long)
        if isinstance(one, Ours):
            network(images, torch.zeros(2), labels).square().mean().backward()
        else:
            one.loss(network, images, labels).backward()  # type: ignore[attr-defined]
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() / 2 / 1e9


def ceiling(seconds: float = 1.0) -> float:
    """GFLOP/s of a large matrix product in the number format that training uses here."""
    from core.training import precision

    where = own_device()
    side = 8192 if where.type == "cuda" else 2048  # a GPU needs more work than starting it takes
    a = torch.randn(side, side).to(where, precision.choose(where).dtype or torch.float32)
    a @ a
    synchronize(where)
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        a @ a
        count += 1
        synchronize(where)
    return count * 2 * side**3 / (time.monotonic() - began) / 1e9


def quality(trained: Trained, one: Contender, data: ImageDataset, judge: Judge, train: Answers, count: int) -> Any:
    """Fréchet distance, class accuracy and samples a second of what a contender learned."""
    labels = np.arange(count) % data.classes
    began = time.monotonic()
    images = trained.draw(labels)
    rate = count / (time.monotonic() - began)
    verdict = judge.examine(images)
    accuracy = float((verdict.classes == labels).mean()) if one.conditional else None
    return metrics.frechet_distance(verdict.features, train.features), accuracy, rate


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=5.0, help="training minutes of each; 0: speeds only")
    options.add_argument("--count", type=int, default=1000, help="samples of each")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=10, help="of a round")
    options.add_argument("--source", default="mnist", choices=["mnist", "digits"])
    options.add_argument("--judge_epochs", type=float, default=8)
    options.add_argument("--only", help="contenders, separated by commas")
    options.add_argument("--work", type=Path, help="folder in which judge and models stay; default: a temporary one")
    chosen = options.parse_args()
    field = [one for one in tutorials() if not chosen.only or one.name in chosen.only.split(",")]
    with work_folder(chosen.work) as place:
        dataset, judged = place / "dataset", place / f"judge-{chosen.judge_epochs:g}"
        source = {"source": chosen.source, "data_dir": chosen.data_dir}
        run_here(PrepareDataRequest(modality="images", data=source, out=dataset))
        data = ImageDataset.open(dataset)
        rates, peak = speeds(field, dataset, chosen.rounds, chosen.steps), ceiling()
        rows = []
        for one in field:
            parameters, gflop = cost(one, data)
            rate = rates[one.name]
            rows.append(
                {
                    "": one.name,
                    "parameters": parameters,
                    "GFLOP/image": gflop,
                    "images/s": rate,
                    "of the ceiling": f"{gflop * rate / peak:.0%}",
                    "evaluations/sample": one.evaluations(),
                }
            )
        title = f"Training, the peers at batch {BATCH}; ceiling {peak:,.0f} GFLOP/s (a large matrix product)"
        if chosen.minutes:
            if not judged.exists():
                section = {"judge_epochs": chosen.judge_epochs}
                run_here(TrainJudgeRequest(modality="images", evaluate=section, dataset=dataset, out=judged))
            judge = Judge.open(judged)
            train = judge.examine(np.array(data.images("train")[:20_000]))
            rng = np.random.default_rng(0)
            real = judge.examine(data.images("test")[np.sort(rng.permutation(data.count("test"))[: chosen.count])])
            floor = metrics.frechet_distance(real.features, train.features)
            for one, row in zip(field, rows, strict=True):
                work = place / f"{one.name.replace(' ', '-')}-{chosen.minutes:g}min"
                trained = one.train(dataset, Budget(minutes=chosen.minutes), work)
                distance, accuracy, rate = quality(trained, one, data, judge, train, chosen.count)
                row |= {"images seen": trained.examples, "Fréchet": distance, "minus floor": distance - floor}
                row |= {"accuracy": accuracy, "samples/s": rate}
                print(row, file=sys.stderr, flush=True)
            title += f"; quality after {chosen.minutes:g} min, n = {len(real.features)}, floor {floor:.3g}"
        publish("images", title, rows, chosen.out, lambda axes: _draw(axes, rows))


def _draw(axes: Any, rows: list[dict[str, Any]]) -> None:
    key = "minus floor" if "minus floor" in rows[0] else "images/s"
    axes.barh([row[""] for row in rows][::-1], [row[key] for row in rows][::-1], color="#0f6b78")
    axes.set_xlabel({"minus floor": "Fréchet distance above its floor (log)", "images/s": "images/s"}[key])
    if key == "minus floor":
        axes.set_xscale("log")


if __name__ == "__main__":
    main()
