"""Surprise against entropy of samples by temperature: what a colder model gains in one and loses in the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from core.evaluation import FrontierPoint
from core.processes import parts as parallel
from core.processes.world import SINGLE_PROCESS, World
from core.text import metrics
from core.text.config import TextEvaluate
from core.text.denoiser import Diffusion
from core.text.metrics import NGramJudge
from core.text.sampling import Writer


@torch.no_grad()
def frontier(
    writer: Writer, judge: NGramJudge, settings: TextEvaluate, world: World = SINGLE_PROCESS
) -> list[FrontierPoint]:
    """Judge surprise and entropy of samples at each temperature, for diffusion and the autoregressive model."""
    modes = ["diffusion", "autoregressive"] if isinstance(writer.trained.network, Diffusion) else ["diffusion"]
    points = [(temperature, mode) for temperature in settings.temperatures for mode in modes]

    def row(index: int) -> dict[str, Any]:
        temperature, mode = points[index]
        warm = replace(writer, settings=writer.settings.model_copy(update={"temperature": temperature}))
        made = warm.texts(mode, settings.frontier_count)
        return {
            "mode": mode,
            "temperature": temperature,
            "entropy": round(metrics.entropy("".join(made)), 5),
            "judge_nll": round(judge.nats_per_character(made), 5),
            "n": sum(map(len, made)),
        }

    return [FrontierPoint.model_validate(one) for one in parallel.values(row, len(points), world)]
