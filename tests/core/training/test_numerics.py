"""fp32 that is named is fp32, and deterministic means that torch refuses whatever is not."""

import pytest
import torch

from core.training.numerics import switched
from core.training.precision import LossScale, choose

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


def state() -> tuple[bool, ...]:
    cudnn = torch.backends.cudnn
    flags = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    return (*flags, torch.are_deterministic_algorithms_enabled())


def test_fp32_that_is_named_is_not_tf32() -> None:
    before = state()
    with switched(choose(GPU, "fp32"), GPU):
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert state() == before


def test_deterministic_holds_for_as_long_as_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = state()
    with pytest.raises(ValueError, match="an error inside"), switched(choose(GPU, "bf16"), GPU, deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
        raise ValueError("an error inside")
    assert state() == before


def test_a_cpu_needs_no_switches() -> None:
    before = state()
    with switched(choose(CPU, "fp32"), CPU, deterministic=True):
        assert state() == before


def test_looks_run_in_a_format_that_is_named() -> None:
    for requested, expected in (("auto", False), ("fp32", False), ("bf16", True)):
        with choose(CPU, requested).looking(CPU):
            assert torch.is_autocast_enabled("cpu") is expected


def test_the_loss_scale_moves_as_torchs_own() -> None:
    ours, theirs = LossScale(CPU, enabled=True), torch.amp.GradScaler("cpu")
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    for step in range(6):
        loss = (parameter * (float("inf") if step in (1, 2) else 1.0)).sum()
        optimizer.zero_grad()
        ours.scaled(loss).backward()
        ours.unscale([parameter])
        mine = parameter.grad.clone()
        ours.update(~mine.isfinite().all())
        optimizer.zero_grad()
        theirs.scale((parameter * (float("inf") if step in (1, 2) else 1.0)).sum()).backward()
        theirs.unscale_(optimizer)
        theirs.step(optimizer)
        theirs.update()
        torch.testing.assert_close(mine, parameter.grad, equal_nan=True)
        state = theirs.state_dict()
        assert ours.state_dict() == {name: state[name] for name in ("scale", "_growth_tracker")}
