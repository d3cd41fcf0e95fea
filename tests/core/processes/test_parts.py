"""Sampling and evaluation on several processes: what they write is what one process writes, to the last byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core import steps
from core.errors import UserError
from core.processes import launch
from tests.core.processes.test_launch import MODEL, ROOT, TRAIN
from tests.core.text import test_steps as text
from tests.core.text.conftest import TEXT

PROGRAM = """
import json, sys
from pathlib import Path
from core import steps
for step, values, paths in json.loads(sys.argv[1]):
    getattr(steps, step)(**values, **{name: Path(path) for name, path in paths.items()})
"""
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
SAMPLE: dict[str, dict[str, Any]] = {  # of images seven batches, the last one smaller; of text, of each mode three
    "images": {"count": 26, "batch_size": 4, "steps": 3, "sampler": "ddpm", "guidance": 2.0},
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
    for modality, section in data.items():
        folder = root / modality
        steps.prepare_data(modality, section, folder / "dataset")
        steps.train_judge(modality, EVALUATE[modality], folder / "dataset", folder / "judge")
    steps.train("images", MODEL, {**TRAIN, "examples": 60}, root / "images/dataset", root / "images/model")
    for name, objective in (("autoregressive", "autoregressive"), ("model", "diffusion")):
        steps.train("text", text.MODEL, text.TRAIN, root / "text/dataset", root / "text" / name, objective=objective)
    return root


def arguments(place: Path, step: str, modality: str, out: Path, **settings: Any) -> dict[str, Any]:
    folder = place / modality
    names = {"sample": ["model"], "evaluate": ["dataset", "judge", "model"]}[step]
    paths = {name: folder / name for name in names} | {"out": out}
    if modality == "text":
        paths["autoregressive"] = folder / "autoregressive"
    if step == "evaluate":
        paths["samples"] = place / modality / "samples-1"
    section = {"sample": SAMPLE, "evaluate": EVALUATE}[step][modality]
    return {"modality": modality, step: {**section, **settings}, **paths}


@pytest.fixture(scope="module")
def alone(place: Path) -> Path:
    """Samples and evaluations of one process, which has as many threads as each of several."""
    request = []
    for modality in ("images", "text"):
        for step, name in (("sample", "samples-1"), ("evaluate", "evaluation-1")):
            asked = arguments(place, step, modality, place / modality / name)
            paths = {name: str(value) for name, value in asked.items() if isinstance(value, Path)}
            request.append((step, {name: value for name, value in asked.items() if name not in paths}, paths))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(request)], env=environment, check=True)
    return place


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but sample.json, which says how long it took and on how many processes."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "sample.json"}


@pytest.mark.parametrize(("modality", "processes"), [("images", 2), ("text", 3)])
def test_samples_and_metrics_are_byte_for_byte_those_of_one_process(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modality: str, processes: int
) -> None:
    monkeypatch.setenv("TEXTDIFFUSION_PROCESSES", str(processes))
    facts = steps.sample(**arguments(alone, "sample", modality, tmp_path / "samples"))
    assert facts["processes"] == processes
    assert contents(tmp_path / "samples") == contents(alone / modality / "samples-1")
    found = steps.evaluate(**arguments(alone, "evaluate", modality, tmp_path / "evaluation"))
    assert contents(tmp_path / "evaluation") == contents(alone / modality / "evaluation-1")
    metrics = json.loads((tmp_path / "evaluation/metrics.json").read_text())
    assert {name: found[name] for name in metrics} == {name: entry["value"] for name, entry in metrics.items()}


def test_a_mistake_that_one_process_meets_is_one_line_of_all(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTDIFFUSION_PROCESSES", "3")
    gaps = {"count": 1, "modes": ["diffusion"], "prompts": ["a ___ b ___"]}  # not in the first process's batch
    with pytest.raises(UserError, match="more than one ___"):
        steps.sample(**arguments(alone, "sample", "text", tmp_path / "samples", **gaps))
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
    steps.sample(**arguments(alone, "sample", "text", tmp_path / "samples"))
    assert (tmp_path / "died").exists()
    assert contents(tmp_path / "samples") == contents(alone / "text/samples-1")


@pytest.mark.usefixtures("one_dies")
def test_a_worker_lost_once_too_often_is_a_clear_error(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "RESTARTS", 0)
    with pytest.raises(RuntimeError, match="sample on 2 processes ended with exit code 1"):
        steps.sample(**arguments(alone, "sample", "text", tmp_path / "samples"))
    assert not (tmp_path / "samples").exists()
