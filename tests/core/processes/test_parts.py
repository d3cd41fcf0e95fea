"""Sampling and evaluation on several processes: what they write is what one process writes, to the last byte."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.modality import run, run_here
from core.processes import launch
from core.requests import EvaluateRequest, ModalityName, SampleRequest
from tests.core.asked import Steps
from tests.core.processes.crowd import crowd
from tests.core.processes.test_launch import MODEL, ROOT, TRAIN
from tests.core.text import test_steps as text
from tests.core.text.conftest import TEXT

DEATH = """
import os, pathlib, signal, sys, time
rank, attempt = os.environ.get("RANK"), os.environ.get("TORCHELASTIC_RESTART_COUNT")
place = pathlib.Path(__file__).parent
def watch(event, arguments):
    if event == "open" and str(arguments[0]).endswith("weights.safetensors") and attempt == "0":
        (place / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if event == "import" and arguments[0] == "core.text.sampling":
        (place / f"ahead-{attempt}").touch()
if rank == "1":
    sys.addaudithook(watch)
if rank == "0" and attempt != "0":
    until = time.monotonic() + 60
    while not (place / f"ahead-{attempt}").exists() and time.monotonic() < until:
        time.sleep(0.05)
"""
MODALITIES: tuple[ModalityName, ...] = ("images", "text")
SAMPLE: dict[str, dict[str, Any]] = {  # of images seven batches, the last one smaller; of text, of each mode three
    "images": {"count": 26, "batch_size": 4, "steps": 3, "sampler": "ddpm", "guidance": 2.0, "redraw": 0.3},
    "text": {**text.SAMPLE, "count": 5, "batch_size": 2},
}
EVALUATE: dict[str, dict[str, Any]] = {
    "images": {"judge_epochs": 1, "batch_size": 50},
    "text": text.EVALUATE,
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every process: with more of them a product of matrices may be summed in another order."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each modality a data set, a judge and models."""
    root = tmp_path_factory.mktemp("parallel")
    (root / "in.txt").write_text(TEXT)
    data: dict[str, dict[str, Any]] = {
        "images": {"source": "digits"},
        "text": {"source": "file", "data_dir": str(root / "in.txt"), "tokenizer": {"kind": "bpe", "vocabulary": 300}},
    }
    for modality in MODALITIES:
        steps, folder = Steps(modality), root / modality
        steps.prepare_data(data[modality], folder / "dataset")
        steps.train_judge(EVALUATE[modality], folder / "dataset", folder / "judge")
    Steps("images").train(MODEL, {**TRAIN, "examples": 60}, root / "images/dataset", root / "images/model")
    for name, objective in (("autoregressive", "autoregressive"), ("model", "diffusion")):
        Steps("text").train(text.MODEL, text.TRAIN, root / "text/dataset", root / "text" / name, objective=objective)
    return root


def sampling(place: Path, modality: ModalityName, out: Path, **settings: Any) -> SampleRequest:
    folder = place / modality
    return SampleRequest(
        modality=modality,
        sample={**SAMPLE[modality], **settings},
        model=folder / "model",
        out=out,
        autoregressive=folder / "autoregressive" if modality == "text" else None,
    )


def evaluation(place: Path, modality: ModalityName, out: Path) -> EvaluateRequest:
    folder = place / modality
    return EvaluateRequest(
        modality=modality,
        evaluate=EVALUATE[modality],
        dataset=folder / "dataset",
        judge=folder / "judge",
        model=folder / "model",
        samples=folder / "samples-1",
        out=out,
        autoregressive=folder / "autoregressive" if modality == "text" else None,
    )


@pytest.fixture(scope="module")
def alone(place: Path) -> Path:
    """Samples and evaluations of one process, which has as many threads as each of several."""
    for modality in MODALITIES:
        folder = place / modality
        assert done(1, place, modality, folder / "samples-1", folder / "evaluation-1") == [0]
    return place


def done(processes: int, place: Path, modality: ModalityName, samples: Path, measured: Path) -> list[int | None]:
    """Samples and evaluates on that many processes; writes the facts beside the evaluation."""
    return crowd(processes, do, sampling(place, modality, samples), evaluation(place, modality, measured))


def do(sample: SampleRequest, evaluate: EvaluateRequest) -> None:
    drawn, measured = run_here(sample), run_here(evaluate)
    if os.environ["RANK"] == "0":
        evaluate.out.with_suffix(".facts").write_text(json.dumps([drawn, measured]))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but sample.json, which says how long it took and on how many processes."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "sample.json"}


@pytest.mark.parametrize(("modality", "processes"), [("images", 2), ("text", 3)])
def test_samples_and_metrics_are_byte_for_byte_those_of_one_process(
    alone: Path, tmp_path: Path, modality: ModalityName, processes: int
) -> None:
    assert done(processes, alone, modality, tmp_path / "samples", tmp_path / "evaluation") == [0] * processes
    facts, found = json.loads((tmp_path / "evaluation.facts").read_text())
    assert facts["processes"] == processes
    assert contents(tmp_path / "samples") == contents(alone / modality / "samples-1")
    assert contents(tmp_path / "evaluation") == contents(alone / modality / "evaluation-1")
    metrics = json.loads((tmp_path / "evaluation/metrics.json").read_text())
    assert {name: found[name] for name in metrics} == {name: entry["value"] for name, entry in metrics.items()}


def test_a_mistake_that_one_process_meets_is_one_line_of_all(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTDIFFUSION_PROCESSES", "2")
    gaps = {"count": 1, "modes": ["diffusion"], "prompts": ["a ___ b ___"]}  # not in the first process's batch
    with pytest.raises(UserError, match="more than one ___"):
        run(sampling(alone, "text", tmp_path / "samples", **gaps))
    assert not (tmp_path / "samples").exists()


@pytest.fixture
def one_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes the second is killed when it reads the model; the first one starts again
    behind it, so that it must not find the address that the first one had before."""
    (tmp_path / "sitecustomize.py").write_text(DEATH)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setenv("TEXTDIFFUSION_PROCESSES", "2")


@pytest.mark.usefixtures("one_dies")
def test_a_lost_worker_costs_a_restart(alone: Path, tmp_path: Path) -> None:
    run(sampling(alone, "text", tmp_path / "samples"))
    assert (tmp_path / "died").exists()
    assert contents(tmp_path / "samples") == contents(alone / "text/samples-1")


@pytest.mark.usefixtures("one_dies")
def test_a_worker_lost_once_too_often_is_a_clear_error(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "RESTARTS", 0)
    with pytest.raises(RuntimeError, match="sample on 2 processes ended with exit code 1"):
        run(sampling(alone, "text", tmp_path / "samples"))
    assert not (tmp_path / "samples").exists()
