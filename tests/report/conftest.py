"""A report of images, one of text, and a gallery of runs, made of artifacts like those of real runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from report import build, service
from report.artifacts import read
from report.gallery import Entry, Registered
from report.gallery import build as build_gallery
from tests.report.artifacts import image_run, text_run


def digits_run(folder: Path, number: int, distance: float) -> dict:
    """A digits run of its own seed, weights and Fréchet distance."""
    run = image_run(folder, seed=number)
    run["run"] |= {"id": f"digits-{number}", "created": f"2026-11-2{number}T03:54:07+00:00"}
    run["run"]["config"] = {**run["run"]["config"], "train": {"seed": number}}
    for name, change in (
        ("model/model.json", {"weights_sha256": str(number) * 64}),
        ("evaluation/metrics.json", {"frechet_distance": {"value": distance, "floor": 1.42, "n": 400}}),
    ):
        facts = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(facts | change))
    return run


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files `images`, `text`, `gallery` (three runs of digits, the newest failed, one of text) and `service`."""
    root = tmp_path_factory.mktemp("runs")
    entries = []
    for number, distance in ((1, 2.6), (2, 1.9)):
        run = digits_run(root / f"images/digits-{number}", number, distance)
        build(root / f"images/digits-{number}/report.html", **run)
        entries.append(Entry(read(**run), f"images/digits-{number}/report.html"))
    text = text_run(root / "text/pydoc-1")
    text["run"]["id"] = "pydoc-1"
    build(root / "text/pydoc-1/report.html", **text)
    steps = [{"name": "train", "state": "failed", "error": "the loss grew from 0.4 to 12"}]
    failed = {"id": "digits-3", "job": "digits", "status": "failed", "steps": steps, "created": "2026-11-23T00:00:00"}
    entries += [Entry(read(**text), "text/pydoc-1/report.html"), Entry(read(failed))]
    versions = [
        Registered("digits", 1, "digits-1", "1" * 64, False),
        Registered("digits", 2, "digits-2", "2" * 64, True),
    ]
    build_gallery(root / "index.html", entries, versions, services=["served/digits.html"])
    facts = json.loads((Path(__file__).parent / "served.json").read_text())
    seconds = {"/generate": [0.05 * 1.01**i for i in range(300)], "/predict": [0.2]}
    made = image_run(root / "other", seed=4)
    service.build(root / "served/digits.html", facts, seconds, dataset=made["dataset"], samples=made["samples"])
    return {
        "images": root / "images/digits-1/report.html",
        "text": root / "text/pydoc-1/report.html",
        "gallery": root / "index.html",
        "service": root / "served/digits.html",
    }
