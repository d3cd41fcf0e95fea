"""The requests of one modality by argument: what tests that are not about requests call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.modality import run_here
from core.requests import (
    EvaluateRequest,
    Facts,
    ModalityName,
    PrepareDataRequest,
    Request,
    SampleRequest,
    Section,
    TrainJudgeRequest,
    TrainRequest,
)


@dataclass(frozen=True)
class Steps:
    """The steps of a modality, done by `run`: in this process, or by `core.modality.run` in all there should be."""

    modality: ModalityName
    run: Callable[[Request], Facts] = run_here

    def prepare_data(self, data: Section, out: Path) -> Facts:
        return self.run(PrepareDataRequest(modality=self.modality, data=data, out=out))

    def train_judge(self, evaluate: Section, dataset: Path, out: Path) -> Facts:
        return self.run(TrainJudgeRequest(modality=self.modality, evaluate=evaluate, dataset=dataset, out=out))

    def train(self, model: Section, train: Section, dataset: Path, out: Path, **more: Any) -> Facts:
        return self.run(
            TrainRequest(modality=self.modality, model=model, train=train, dataset=dataset, out=out, **more)
        )

    def sample(self, sample: Section, model: Path, out: Path, **more: Any) -> Facts:
        return self.run(SampleRequest(modality=self.modality, sample=sample, model=model, out=out, **more))

    def evaluate(
        self, evaluate: Section, dataset: Path, judge: Path, model: Path, samples: Path, out: Path, **more: Any
    ) -> Facts:
        paths = {"dataset": dataset, "judge": judge, "model": model, "samples": samples, "out": out}
        return self.run(EvaluateRequest(modality=self.modality, evaluate=evaluate, **paths, **more))
