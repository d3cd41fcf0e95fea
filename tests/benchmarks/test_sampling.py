"""The comparison of samplers: the peer's solver gets the same problem, the yardstick is the one of `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import sampling
from core.images.config import ImageSample
from core.images.dataset import ImageDataset
from core.images.judge import Judge
from core.noise import karras_sigmas
from core.samplers import sample_dpmpp
from tests.core.asked import Steps

steps = Steps("images")

MODEL = {"network": {"name": "unet", "channels": [8, 16], "blocks": [1, 1]}}
TRAIN = {"examples": 2048, "batch_size": 64, "warmup_examples": 256}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set, judge and a model that has only begun to learn."""
    place = tmp_path_factory.mktemp("digits")
    steps.prepare_data({"source": "digits"}, place / "dataset")
    steps.train_judge({"judge_epochs": 3}, place / "dataset", place / "judge")
    steps.train(MODEL, TRAIN, place / "dataset", place / "model", work=str(place / "work"))
    return place


@pytest.mark.parametrize("count", [5, 20])
def test_the_solver_of_diffusers_gets_the_very_same_problem(count: int) -> None:
    """Both are DPM-Solver++(2M) on one grid: on any denoiser, here a bent one, they must agree."""
    settings = ImageSample(steps=count)
    begin = torch.randn(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    def denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x / (0.4 + sigma**2)) * 0.8

    theirs = sampling.solve_by_diffusers(denoiser, begin, settings, 0.6)
    sigmas = karras_sigmas(count, settings.sigma_min, settings.sigma_max, settings.rho)
    ours = sample_dpmpp(denoiser, settings.sigma_max * begin, sigmas)
    assert torch.allclose(theirs, ours, atol=2e-3)


def test_the_yardstick_is_that_of_evaluate(made: Path, tmp_path: Path) -> None:
    section = {"count": 300, "steps": 6}
    steps.sample(section, made / "model", tmp_path / "samples")
    steps.evaluate(
        {"count": 300}, made / "dataset", made / "judge", made / "model", tmp_path / "samples", tmp_path / "e"
    )
    found = json.loads((tmp_path / "e" / "metrics.json").read_text())
    with np.load(tmp_path / "samples" / "samples.npz") as drawn:
        images, labels = drawn["images"], drawn["labels"]
    yardstick = sampling.Yardstick(Judge.open(made / "judge"), ImageDataset.open(made / "dataset"), labels)
    distance, accuracy = yardstick.measure(images)
    assert yardstick.n == found["frechet_distance"]["n"]
    assert distance == pytest.approx(found["frechet_distance"]["value"], rel=1e-6)
    assert yardstick.floor == pytest.approx(found["frechet_distance"]["floor"], rel=1e-6)
    assert accuracy == found["class_accuracy"]["value"]


def test_every_sampler_is_measured_beside_the_reference(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [f"--{name}={made / name}" for name in ("model", "dataset", "judge")]
    few = ["--count=40", "--steps=4,8", "--ancestral=30", "--seeds=2", "--job=mnist-training", f"--out={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["sampling", *places, *few])
    sampling.main()
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| ")]
    names = [row[0] for row in rows[2:]]
    assert names.count("dpmpp") == names.count("diffusers sde-dpmsolver++") == 2
    assert {"ancestral, ddpm grid", "ancestral, karras grid"} <= set(names)
    ratios = [float(row[-1].replace(",", "")) for row in rows[2:] if row[0].startswith("ancestral")]
    assert min(ratios) == 1
    heun = [int(row[2]) for row in rows[2:] if row[0] == "heun"]
    assert heun == [4, 8]  # never more evaluations than the others have in that row
    assert (tmp_path / "sampling.png").read_bytes().startswith(b"\x89PNG")


def test_fewest_evaluations_within_five_percent_of_the_better_reference() -> None:
    def row(name: str, nfe: int, distance: float) -> dict[str, object]:
        return {"sampler": name, "NFE": nfe, "Fréchet": distance, "samples/s": 10.0}

    rows = [row("dpmpp", 8, 1.3), row("dpmpp", 16, 1.04), row("dpmpp", 20, 0.9), row("ddim", 20, 1.06)]
    rows += [row("ancestral, ddpm grid", 1000, 1.5), row("ancestral, karras grid", 1000, 1.0)]
    reference, sentences = sampling.compare(rows)
    assert reference["sampler"] == "ancestral, karras grid"
    assert sentences[0].startswith("- dpmpp: within 5 % from 16 evaluations on, 62 x fewer")
    assert sentences[1] == "- ddim: nowhere within 5 % of the reference"
