"""A recorded step is the step: it reads all that changes from its batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.config import TrainConfig
from core.processes.world import World
from core.training import graphs, precision
from core.training.graphs import Graphs
from core.training.objective import Batch, Objective
from core.training.optimizers import Optimizers
from core.training.step import Step
from tests.core.toy import ToyObjective
from tests.core.training.recorded import Recordings
from tests.core.training.small import images, text

CPU = torch.device("cpu")
STEPS = 12


def _tensors(step: Step) -> list[Tensor]:
    """All that a step changes."""
    modules = [*step.model.state_dict().values(), *step.ema.model.state_dict().values()]
    return [*modules, *step.model.buffers(), *step.optimizers.state_dict().values()]


def trained(
    objective: Objective, monkeypatch: pytest.MonkeyPatch, *, recorded: bool, number_format: str = "fp32"
) -> tuple[list[Tensor], Tensor, int]:
    """All that `STEPS` steps, as a GPU takes them, leave behind, what each came to, and how many were recorded."""
    config = TrainConfig(examples=10**6, batch_size=8, optimizer="muon", weight_decay=0.1, warmup_examples=80)
    step = Step(objective, config, World(0, 1, CPU), precision.choose(CPU, number_format))
    step.on_gpu, step.graphs = True, Graphs(on=recorded)

    def decided_there(self: Optimizers, bad: Tensor) -> None:
        for optimizer in self.parts.values():
            optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
            optimizer.step()

    monkeypatch.setattr(graphs, "WARM", 1)
    recordings = Recordings(monkeypatch, lambda: _tensors(step))
    monkeypatch.setattr(Optimizers, "step", decided_there)
    rows = [step(8 * index, (index + 1) / STEPS) for index in range(STEPS)]
    return _tensors(step), torch.stack(rows), recordings.made


# Dropout by half, whose factor of two is exact however it is calculated.
@pytest.mark.parametrize("name", ["toy", "images", "autoregressive", "masked", "diffusion"])
def test_recorded_steps_leave_the_very_same_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def objective() -> Objective:
        torch.manual_seed(0)
        return ToyObjective(dropout=0.5) if name == "toy" else images() if name == "images" else text(name)

    number_format = "bf16" if name == "images" else "fp32"  # whose weights are copied
    left, rows, _ = trained(objective(), monkeypatch, recorded=False, number_format=number_format)
    right, again, made = trained(objective(), monkeypatch, recorded=True, number_format=number_format)
    assert made >= (2 if name == "diffusion" else 1)  # blocks of several lengths
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
