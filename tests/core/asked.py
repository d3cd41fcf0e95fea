"""The requests of one modality by argument, done in this process: what tests that are not about requests call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.modality import run_here
from core.requests import (
    EvaluateRequest,
    Facts,
    ModalityName,
    PrepareDataRequest,
    SampleRequest,
    Section,
    TrainJudgeRequest,
    TrainRequest,
)


@dataclass(frozen=True)
class Steps:
    modality: ModalityName

    def prepare_data(self, data: Section, out: Path) -> Facts:
        return run_here(PrepareDataRequest(modality=self.modality, data=data, out=out))

    def train_judge(self, evaluate: Section, dataset: Path, out: Path) -> Facts:
        return run_here(TrainJudgeRequest(modality=self.modality, evaluate=evaluate, dataset=dataset, out=out))

    def train(self, model: Section, train: Section, dataset: Path, out: Path, **more: Any) -> Facts:
        return run_here(
            TrainRequest(modality=self.modality, model=model, train=train, dataset=dataset, out=out, **more)
        )

    def sample(self, sample: Section, model: Path, out: Path, **more: Any) -> Facts:
        return run_here(SampleRequest(modality=self.modality, sample=sample, model=model, out=out, **more))

    def evaluate(
        self, evaluate: Section, dataset: Path, judge: Path, model: Path, samples: Path, out: Path, **more: Any
    ) -> Facts:
        paths = {"dataset": dataset, "judge": judge, "model": model, "samples": samples, "out": out}
        return run_here(EvaluateRequest(modality=self.modality, evaluate=evaluate, **paths, **more))
