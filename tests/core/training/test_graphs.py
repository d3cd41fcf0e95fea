"""A recorded step is the step: it reads all that changes from its batch.

What records here is torch.fx, which like a CUDA graph keeps the operators and every number that the host put in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from core.config import TrainConfig
from core.processes.world import World
from core.training import graphs, precision
from core.training.graphs import Graphs
from core.training.objective import Batch, Objective
from core.training.optimizers import Optimizers
from core.training.step import Step
from tests.core.toy import ToyObjective
from tests.core.training.small import images, text

CPU = torch.device("cpu")
STEPS = 12


class Recording:
    """What stands for a CUDA graph: made without changing anything, and run on its inputs as they are."""

    made = 0

    def __init__(self, step: Step, function: Callable[[Batch], Tensor], batch: Batch) -> None:
        self.inputs = tuple(tensor.clone() for tensor in batch.tensors)
        state = _tensors(step)
        before = [tensor.clone() for tensor in state]
        with torch.random.fork_rng(devices=[]):
            self.run = make_fx(lambda *tensors: function(Batch(tensors, batch.kind)))(*self.inputs)
        with torch.no_grad():
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
        self.result = torch.zeros(3, dtype=torch.float64)
        Recording.made += 1

    @torch.no_grad()
    def replay(self) -> None:
        self.result.copy_(self.run(*self.inputs))


def _tensors(step: Step) -> list[Tensor]:
    """All that a step changes."""
    modules = [*step.model.state_dict().values(), *step.ema.model.state_dict().values()]
    return [*modules, *step.model.buffers(), *step.optimizers.state_dict().values()]


def trained(
    objective: Objective, monkeypatch: pytest.MonkeyPatch, *, recorded: bool, number_format: str = "fp32"
) -> tuple[list[Tensor], Tensor]:
    """All that `STEPS` steps, as a GPU takes them, leave behind, and what each came to."""
    config = TrainConfig(examples=10**6, batch_size=8, optimizer="muon", weight_decay=0.1, warmup_examples=80)
    step = Step(objective, config, World(0, 1, CPU), precision.choose(CPU, number_format))
    step.on_gpu, step.graphs = True, Graphs() if recorded else None

    def record(function: Callable[[Batch], Tensor], batch: Batch) -> Any:
        made = Recording(step, function, batch)
        return made, made.inputs, made.result

    def decided_there(self: Optimizers, bad: Tensor) -> None:
        for optimizer in self.parts.values():
            optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
            optimizer.step()

    monkeypatch.setattr(graphs, "WARM", 1)
    monkeypatch.setattr(graphs, "_recorded", record)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(Optimizers, "step", decided_there)
    rows = [step(8 * index, (index + 1) / STEPS) for index in range(STEPS)]
    return _tensors(step), torch.stack(rows)


# Dropout by half, whose factor of two is exact however it is calculated.
@pytest.mark.parametrize("name", ["toy", "images", "autoregressive", "masked", "diffusion"])
def test_recorded_steps_leave_the_very_same_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def objective() -> Objective:
        torch.manual_seed(0)
        return ToyObjective(dropout=0.5) if name == "toy" else images() if name == "images" else text(name)

    Recording.made = 0
    number_format = "bf16" if name == "images" else "fp32"  # whose weights are copied
    left, rows = trained(objective(), monkeypatch, recorded=False, number_format=number_format)
    right, again = trained(objective(), monkeypatch, recorded=True, number_format=number_format)
    assert Recording.made >= (2 if name == "diffusion" else 1)  # blocks of several lengths
    assert torch.equal(rows, again)
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_what_cannot_be_recorded_runs_on_kernel_by_kernel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(graphs, "_recorded", refused)
    some, calls = Graphs(), []
    for index in range(graphs.WARM + 3):
        result = some(lambda batch: calls.append(1) or 2 * batch.tensors[0], Batch((torch.tensor(index),)))
        assert int(result) == 2 * index
    assert len(calls) == graphs.WARM + 3
    assert [record.message for record in caplog.records] == [
        "no CUDA graph of a step, which runs kernel by kernel: operation not permitted when stream is capturing"
    ]
