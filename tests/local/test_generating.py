"""One sample here, now: from a model folder, the registry, a run, and Google Cloud Storage; and a gallery put there."""

from __future__ import annotations

import io
import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core import storage
from core.errors import UserError
from core.images.config import ImageSample
from factory.registry import Registry
from factory.run_folder import new_run
from local import gallery
from local.generating import generate
from tests.core.asked import Steps
from tests.fakes.gcs import GcsServer

steps = Steps("images")

TINY = {"network": {"name": "unet", "channels": [8], "blocks": [0], "embedding": 16, "attention": False}}
QUICK = {"count": 4, "steps": 2, "seed": 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of digits as a folder, as the champion of a registry, and as what a run left."""
    root = tmp_path_factory.mktemp("place")
    steps.prepare_data({"source": "digits", "limit": 200}, root / "data")
    facts = steps.train(TINY, {"examples": 64, "batch_size": 32}, root / "data", root / "model")
    registry = Registry(root / "registry")
    made = {"metrics": {}, "evaluation_key": "k", "weights_sha256": facts["weights_sha256"], "lineage": {"run": "r"}}
    registry.register("tiny", {"model": root / "model"}, **made)
    registry.promote("tiny", 1, "first")
    run = new_run(root / "runs", "images", "tiny", ["train"], {})
    run.begin("train")  # `latest` points at it
    storage.copy_tree(root / "model", run.folder / "steps/train")
    artifact = {"path": "steps/train", "uri": "", "type": "system.Model", "metadata": {}}
    run.update("train", state="succeeded", artifacts={"model": artifact})
    run.save(status="succeeded")
    run.build_report()
    return root


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with GcsServer() as server:
        server.create_bucket("shelf")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield "gs://shelf"


def draw(place: Path, model: str, out: Path, registry: str | None = None, **more: Any) -> dict[str, Any]:
    return generate(model, registry or str(place / "registry"), QUICK, runs=place / "runs", out=out, **more)


def test_folder_registry_and_run_draw_the_same_image(place: Path, tmp_path: Path) -> None:
    run = next((place / "runs/images").iterdir()).name
    pictures = []
    for index, model in enumerate((str(place / "model"), "tiny", "tiny@1", "tiny@champion", run, "latest")):
        result = draw(place, model, tmp_path / f"{index}.png", label=7)
        pictures.append(result["picture"])
        assert Path(result["file"]).read_bytes().startswith(b"\x89PNG")
    assert pictures[0].shape == (8, 4 * 9 - 1)
    assert all(np.array_equal(one, pictures[0]) for one in pictures)


def test_what_is_not_wished_for_is_as_it_was_when_the_model_was_measured(place: Path, tmp_path: Path) -> None:
    manner = {"steps": 3, "sampler": "ddim", "sigma_max": 20.0}
    measured = ImageSample(count=50, seed=9, labels=(2,), **manner).model_dump(mode="json")
    registry = Registry(tmp_path / "registry")
    weights = storage.read_json(place / "model" / "model.json")["weights_sha256"]
    made = {"metrics": {}, "evaluation_key": "k", "weights_sha256": weights, "lineage": {"sample": measured}}
    registry.register("tiny", {"model": place / "model"}, **made)
    run = new_run(tmp_path / "runs", "images", "tiny", ["sample"], {})
    for name, step in (("model", "train"), ("samples", "sample")):
        (run.folder / "steps" / step).mkdir(parents=True)
        artifact = {"path": f"steps/{step}", "uri": "", "type": "system.Artifact", "metadata": {}}
        run.update("sample", artifacts={**run.step("sample").get("artifacts", {}), name: artifact})
    storage.copy_tree(place / "model", run.folder / "steps/train")
    storage.write_json(run.folder / "steps/sample/sample.json", {"settings": measured})
    run.save(status="succeeded")

    def picture(model: str, **wishes: Any) -> Any:
        wishes = {"count": 4, "seed": 3, **wishes}
        return generate(model, registry.root, wishes, runs=tmp_path / "runs", out=tmp_path / "a.png")["picture"]

    wanted = picture(str(place / "model"), **manner)
    assert np.array_equal(picture("tiny@1"), wanted)
    assert np.array_equal(picture(run.id), wanted)
    with pytest.raises(UserError, match="tiny: no champion"):
        picture("tiny")  # its run's id begins so, and is not what a registered model's name means
    assert np.array_equal(picture("tiny@1", steps=5), picture(str(place / "model"), **{**manner, "steps": 5}))
    assert not np.array_equal(picture("tiny@1", steps=5), wanted)
    assert not np.array_equal(picture(str(place / "model")), wanted)


def test_a_gif_is_the_way_from_noise(place: Path, tmp_path: Path) -> None:
    draw(place, "tiny", tmp_path / "path.gif")
    with Image.open(tmp_path / "path.gif") as opened:
        assert opened.n_frames == 3  # two steps and the end


def test_models_are_drawn_from_google_cloud_storage(place: Path, bucket: str, tmp_path: Path) -> None:
    storage.copy_tree(place / "registry", f"{bucket}/registry")
    wanted = draw(place, "tiny", tmp_path / "a.png")["picture"]
    by_alias = draw(place, "tiny@champion", tmp_path / "b.png", registry=f"{bucket}/registry")["picture"]
    by_uri = draw(place, f"{bucket}/registry/tiny/versions/00001/model", tmp_path / "c.png")["picture"]
    assert np.array_equal(by_alias, wanted)
    assert np.array_equal(by_uri, wanted)


def test_a_gallery_in_a_bucket_is_served_as_pages(place: Path, bucket: str) -> None:
    play = place / "runs/playground/tiny@1"
    play.mkdir(parents=True)
    (play / "index.html").write_text("<title>tiny</title>")
    (play / "model.js").write_text("const MODEL = {};")
    assert gallery.publish(place / "runs", str(place / "registry"), f"{bucket}/gallery") == 1
    page = storage.read_bytes(f"{bucket}/gallery/index.html").decode()
    assert '<a href="playground/tiny%401/index.html">tiny@1</a>' in page
    assert storage.read_bytes(f"{bucket}/gallery/playground/tiny@1/model.js") == b"const MODEL = {};"
    for name in storage.list_files(f"{bucket}/gallery"):
        if not name.endswith(".html"):
            continue
        where = f"{os.environ['STORAGE_EMULATOR_HOST']}/storage/v1/b/shelf/o/gallery%2F{name.replace('/', '%2F')}"
        assert json.load(urllib.request.urlopen(where))["contentType"] == "text/html"


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ("nothing", {}, "no champion"),
        ("tiny", {"prompt": "x"}, "--prompt is for models of text"),
        ("tiny", {"label": 10}, "found '10'"),
        ("tiny@9", {}, "no such version"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    model: str, more: dict[str, Any], message: str, place: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        draw(place, model, tmp_path / "x.png", **more)
    assert not list(tmp_path.iterdir())


def test_blocks_are_of_text(place: Path) -> None:
    with pytest.raises(UserError, match="--block is for models of text; this one draws images"):
        generate("tiny", str(place / "registry"), {**QUICK, "block": 8}, runs=place / "runs")


def test_a_terminal_sees_the_picture_and_a_pipe_does_not(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textdiffusion.cli import app as cli

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm-256color")
    for stream, blocks in ((Screen(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as ended:
            cli.main(["generate", "--model", str(place / "model"), "--steps", "2", "--out", "x.png"])
        assert ended.value.code == 0
        assert ("▀" in stream.getvalue()) == blocks
        assert stream.getvalue().endswith("x.png\n")


@pytest.mark.parametrize("name", ["holiday", "drawn.jpg"])
def test_a_folder_of_something_else_is_left_alone(name: str, place: Path, tmp_path: Path) -> None:
    out = tmp_path / name
    if name == "holiday":
        storage.write_bytes(out / "grid.png", b"mine")
    with pytest.raises(UserError, match="--out"):
        generate(str(place / "model"), str(tmp_path / "registry"), {"count": 4, "steps": 2}, out=out)
    assert not out.exists() or (out / "grid.png").read_bytes() == b"mine"
