"""What "the same machine" means is in every checkpoint, and going on with another is said."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core.config import TrainConfig
from core.storage.checkpoint import CheckpointStore
from core.training.loop import FitResult, fit
from core.training.machine import present
from core.training.precision import choose
from core.training.threads import CHOSEN
from tests.core.toy import ToyObjective
from tests.core.training.test_loop import CPU, SHORT, InterruptedTrainingError, StopAfter


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    """How many there are now; the same again after the test."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def cut(folder: Path) -> None:
    with pytest.raises(InterruptedTrainingError):
        fit(StopAfter(5), SHORT, CheckpointStore(str(folder)), CPU)


def go_on(folder: Path, config: TrainConfig = SHORT) -> FitResult:
    return fit(ToyObjective(), config, CheckpointStore(str(folder)), CPU)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_checkpoint_says_on_what_machine_it_was_made(tmp_path: Path, threads: int) -> None:
    cut(tmp_path)
    checkpoint = CheckpointStore(str(tmp_path)).load()
    assert checkpoint is not None
    assert checkpoint.meta["machine"] == present(CPU, choose(CPU.device, "auto"))
    assert checkpoint.meta["machine"]["threads"] == threads
    assert torch.backends.cpu.get_cpu_capability() in checkpoint.meta["machine"]["processor"]


def test_going_on_with_the_same_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cut(tmp_path)
    go_on(tmp_path)
    assert warnings(caplog) == []


def test_going_on_with_other_threads_and_precision_is_one_line(
    tmp_path: Path, threads: int, caplog: pytest.LogCaptureFixture
) -> None:
    cut(tmp_path)
    torch.set_num_threads(threads + 1)
    before = present(CPU, choose(CPU.device, "auto"))["number_format"]
    other = "bf16" if before == "float32" else "fp32"
    result = go_on(tmp_path, SHORT.model_copy(update={"precision": other}))
    (said,) = warnings(caplog)
    assert f"threads {threads} -> {threads + 1}" in said
    assert f"number_format {before} -> " in said
    assert result.machine["threads"] == threads + 1


def test_a_checkpoint_of_another_format_goes_on_in_fp16_whose_scale_begins_anew(tmp_path: Path) -> None:
    cut(tmp_path)
    result = go_on(tmp_path, SHORT.model_copy(update={"precision": "fp16"}))
    assert result.examples_seen == SHORT.examples
    store = CheckpointStore(str(tmp_path))
    newest = store.load()
    assert newest is not None
    assert newest.meta["scaler"]["scale"] > 0


def test_where_a_run_chose_the_threads_a_checkpoint_keeps_its_own(
    tmp_path: Path, threads: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(tmp_path)
    monkeypatch.setenv(CHOSEN, "run")
    torch.set_num_threads(threads + 1)
    assert go_on(tmp_path).machine["threads"] == threads == torch.get_num_threads()
    assert warnings(caplog) == []


def test_a_checkpoint_from_before_this_was_recorded_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cut(tmp_path)
    store = CheckpointStore(str(tmp_path))
    old = store.load()
    assert old is not None
    store.save(old.tensors, old.files, {key: value for key, value in old.meta.items() if key != "machine"})
    assert go_on(tmp_path).examples_seen == SHORT.examples
    assert warnings(caplog) == []
