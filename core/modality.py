"""The two modalities, and how a request reaches the code of one.

    component -> run(request) -> modality(request.modality).train(request) -> core/training/fitting.py

`python -m core.modality REQUEST` is a worker process of `run` where there are several (core/processes/launch.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

from core.processes import launch
from core.requests import (
    EvaluateRequest,
    Facts,
    PrepareDataRequest,
    Request,
    SampleRequest,
    Section,
    ShardDrawer,
    ShardRequest,
    TrainJudgeRequest,
    TrainRequest,
    modality_name,
    parse_request,
)


class Modality(Protocol):
    """What the code of a modality offers: one function for each request. Every one raises UserError for bad input."""

    def prepare_data(self, request: PrepareDataRequest) -> Facts: ...

    def train_judge(self, request: TrainJudgeRequest) -> Facts: ...

    def train(self, request: TrainRequest) -> Facts: ...

    def sample(self, request: SampleRequest) -> Facts: ...

    def evaluate(self, request: EvaluateRequest) -> Facts: ...

    def equal_terms(self, champion: Path, challenger: Path, dataset: Path, sample: Section) -> Section:
        """The section by which a champion draws, to be measured on a challenger's data set as the challenger was.

        Raises:
            IncomparableError: it cannot be.
        """

    def shard_drawer(self, request: ShardRequest) -> ShardDrawer: ...


def modality(name: str) -> Modality:
    """The code of a modality, imported when it is asked for.

    Raises:
        UserError: there is no such modality.
    """
    match modality_name(name):
        case "images":
            from core.images import modality as images

            return images
        case "text":
            from core.text import modality as text

            return text


def run(request: Request) -> Facts:
    """Does what `request` asks, in one process or in every process of a cluster; flat facts about what was written.

    Training, sampling and evaluation run in one process for each GPU of each node (core/processes/launch.py). The
    facts are the same on every node.

    Raises:
        UserError: what was asked for cannot be done.
    """
    if isinstance(request, TrainRequest | SampleRequest | EvaluateRequest):
        cluster = launch.here()
        if cluster.size > 1:
            return launch.launch(cluster, "core.modality", request.step, request.model_dump_json())
    return run_here(request)


def run_here(request: Request) -> Facts:
    """The same in this process, which may be one of several that torchrun started."""
    chosen = modality(request.modality)
    match request:
        case PrepareDataRequest():
            return chosen.prepare_data(request)
        case TrainJudgeRequest():
            return chosen.train_judge(request)
        case TrainRequest():
            return chosen.train(request)
        case SampleRequest():
            return chosen.sample(request)
        case EvaluateRequest():
            return chosen.evaluate(request)


if __name__ == "__main__":
    launch.work(Path(sys.argv[1]), lambda text: run_here(parse_request(text)))
