"""`import textdiffusion as td`: from arrays and texts to samples and metrics, loops of one's own, what it refuses."""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

import textdiffusion as td
from core import storage
from core.images.data import prepare_data
from core.images.networks import network_for
from factory.registry import Registry
from factory.run_folder import new_run
from textdiffusion.measuring import evaluate

ROOT = Path(__file__).parents[2]
TINY = {"channels": [8], "blocks": [0], "embedding": 16, "attention": False}
SMALL = {"width": 16, "depth": 1, "heads": 1}
QUICK = {"steps": 2, "seed": 3}
TEXT = "".join(f"On day {i} {name} said that the river was cold.\n" for i in range(60) for name in ("Anna", "Ben"))


def scans() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    digits = load_digits()
    return digits.images[:400] / 16, digits.target[:400]


@pytest.fixture(scope="module")
def data() -> td.Images:
    return td.images(*scans())


@pytest.fixture(scope="module")
def model(data: td.Images) -> td.ImageDiffusion:
    return td.train(data, examples=128, network=TINY)


@pytest.fixture(scope="module")
def texts() -> td.Texts:
    return td.text(TEXT, vocabulary=260)


@pytest.fixture(scope="module")
def writer(texts: td.Texts) -> td.TextDiffusion:
    return td.train(texts, examples=32, network=SMALL)


def loaded(program: str) -> str:
    heavy = "('torch', 'numpy', 'pydantic', 'sklearn', 'PIL', 'kfp', 'google.api_core', 'rich', 'typer')"
    program = f"import sys\n{program}\nprint(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_it_imports_nothing_heavy() -> None:
    assert loaded("import textdiffusion as td; assert 'train' in dir(td)") == ""
    assert loaded("import textdiffusion as td; td.UserError") == ""


def test_no_name_needs_kfp_or_google() -> None:
    found = loaded("import textdiffusion as td; [getattr(td, name) for name in td.__all__]").split()
    assert {"torch", "numpy"} <= set(found)
    assert not {"kfp", "google.api_core", "typer"} & set(found)


def test_type_checkers_see_the_names_that_there_are() -> None:
    tree = ast.parse((ROOT / "textdiffusion/__init__.py").read_text(encoding="utf-8"))
    seen = {
        (alias.name, node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
        if alias.asname
    }
    assert seen == set(td._HOMES.items())
    assert sorted(td.__all__) == sorted(td._HOMES)
    assert all(getattr(td, name).__doc__ for name in td.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'trian'; it has images, text, train"):
        _ = td.trian  # type: ignore[attr-defined]


# --- images


def test_arrays_become_a_data_set_with_held_out_splits(data: td.Images) -> None:
    images, labels = scans()
    assert len(data) + data.dataset.count("validation") + data.dataset.count("test") == len(images)
    assert (data.shape, data.class_names, data.labelled) == ((8, 8), [str(digit) for digit in range(10)], True)
    first = np.rint(images * 255).astype(np.uint8)
    known = {(image.tobytes(), label) for image, label in zip(first, labels.tolist(), strict=True)}
    stored = zip(data.images("test"), data.labels("test").tolist(), strict=True)
    assert {(image.tobytes(), label) for image, label in stored} <= known
    assert data.std == pytest.approx(float((data.images() / 127.5 - 1).std()), abs=1e-4)


def test_a_model_samples_the_class_that_is_asked_for_and_the_same_for_a_seed(model: td.ImageDiffusion) -> None:
    samples = model.sample(3, label="7", **QUICK)
    assert (samples.shape, samples.dtype) == ((3, 8, 8), np.uint8)
    assert np.array_equal(samples, model.sample(3, label=7, **QUICK))
    assert not np.array_equal(samples, model.sample(3, label=7, steps=2, seed=4))
    assert model.sample(steps=2).shape == (10, 8, 8)  # one of each class
    assert model.sample(label=[1, 2, 3], steps=2).shape == (3, 8, 8)
    assert [row["examples"] for row in model.log][-1] == model.description["examples_seen"] == 128


def test_a_training_that_was_there_already_is_not_done_twice(data: td.Images, tmp_path: Path) -> None:
    first, second = (td.train(data, examples=64, network=TINY, checkpoints=tmp_path) for _ in range(2))
    assert first.log == second.log  # with the seconds that the first one took
    assert first.description["weights_sha256"] == second.description["weights_sha256"]


def test_training_begins_from_a_model(data: td.Images, model: td.ImageDiffusion) -> None:
    again = td.train(data, examples=64, start=model)
    assert again.config == model.config


def test_images_without_labels_train_a_model_without_classes() -> None:
    data = td.images(torch.rand(60, 3, 9, 7, generator=torch.Generator().manual_seed(0)))
    assert (data.shape, data.labelled) == ((9, 7, 3), False)
    model = td.train(data, examples=64, network=TINY)
    assert model.sample(2, steps=2).shape == (2, 9, 7, 3)
    assert model.sample(steps=2).shape == (1, 9, 7, 3)


def test_metrics_have_floor_count_and_judge(data: td.Images, model: td.ImageDiffusion) -> None:
    metrics = td.evaluate(model, data, 40, judge_epochs=0.2, sample={"steps": 2})
    assert {"frechet_distance", "class_accuracy", "memorised"} <= set(metrics)
    accuracy = metrics["class_accuracy"]
    assert (accuracy["n"], len(accuracy["judge"])) == (40, 64)
    assert 0 <= accuracy["value"] <= 1 and 0 <= accuracy["floor"] <= 1  # noqa: PT018
    assert accuracy["judge"][:12] in repr(metrics)
    assert td.evaluate(model, data, 40, judge_epochs=0.2, sample={"steps": 2}) == metrics  # same judge, same seed


def test_what_was_saved_samples_the_same(data: td.Images, model: td.ImageDiffusion, tmp_path: Path) -> None:
    for _ in range(2):  # a model that is there is replaced
        model.save(tmp_path / "model")
    again = td.load(tmp_path / "model")
    assert np.array_equal(again.sample(4, **QUICK), model.sample(4, **QUICK))
    assert again.log == model.log
    data.save(tmp_path / "data")
    assert td.images(tmp_path / "data").dataset.content_sha256 == data.dataset.content_sha256
    prepared = td.images(tmp_path / "data")
    assert np.array_equal(prepared.images("test"), data.images("test"))


def test_a_registered_model_and_a_runs_sample_as_they_were_measured(model: td.ImageDiffusion, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    measured = {"steps": 3, "sampler": "heun", "guidance": 2.0, "count": 999, "seed": 9}
    registry = Registry(tmp_path / "registry")
    made = {"metrics": {}, "evaluation_key": "k", "weights_sha256": "", "lineage": {"sample": measured}}
    registry.register("mine", {"model": tmp_path / "model"}, **made)
    registry.promote("mine", 1, "first")
    run = new_run(tmp_path / "runs", "images", "mine", ["train"], {})
    storage.copy_tree(tmp_path / "model", run.folder / "steps/train")
    artifact = {"path": "steps/train", "uri": "", "type": "system.Model", "metadata": {}}
    run.update("train", state="succeeded", artifacts={"model": artifact})
    registered = td.load("mine@1", registry=str(registry.root))
    wanted = model.sample(2, seed=1, steps=3, sampler="heun", guidance=2.0)
    assert np.array_equal(registered.sample(2, seed=1), wanted)
    of_run = td.load(run.id, registry=str(registry.root), runs=tmp_path / "runs")
    assert np.array_equal(of_run.sample(2, **QUICK), model.sample(2, **QUICK))


# --- a loop of one's own


class Own(torch.nn.Module):
    """The smallest network there can be."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.classes = torch.nn.Conv2d(1, 1, 3, padding=1), torch.nn.Embedding(11, 1)

    def forward(self, x: torch.Tensor, noise_level: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.mix(x) + (self.classes(labels) * noise_level[:, None])[..., None, None]


def test_a_loop_of_ones_own_with_a_network_of_ones_own_learns_and_samples(data: td.Images) -> None:
    torch.manual_seed(0)
    diffusion = td.ImageDiffusion(Own(), data.shape, data.class_names, sigma_data=data.std)
    optimizer = torch.optim.AdamW(diffusion.parameters(), 3e-2)
    losses = []
    for images, labels in data.batches(64, examples=64 * 30):
        loss = diffusion.loss(images, labels).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert diffusion.training
    assert diffusion.sample(2, label=7, steps=2).shape == (2, 8, 8)
    assert "class_accuracy" in td.evaluate(diffusion, data, 20, judge_epochs=0.2, sample={"steps": 2})
    with pytest.raises(td.UserError, match="a module of your own"):
        diffusion.save("nowhere")


def test_a_loss_is_one_number_an_image_and_repeats_with_torchs_seed(data: td.Images) -> None:
    diffusion = td.ImageDiffusion(TINY, data.shape, 10)
    images, labels = data.images()[:5], data.labels()[:5]
    losses = []
    scaled = images / 127.5 - 1  # float64, as numpy's floats are
    for given in (images.copy(), scaled[:, None], torch.from_numpy(scaled).float()[:, None]):
        torch.manual_seed(1)
        losses.append(diffusion.loss(given, labels))
    assert losses[0].shape == (5,)
    for other in losses[1:]:
        torch.testing.assert_close(losses[0], other)
    assert not torch.equal(losses[0], diffusion.loss(images.copy(), labels))
    assert diffusion.loss(images.copy()).shape == (5,)


def test_a_configured_network_from_a_loop_of_ones_own_is_saved(data: td.Images, tmp_path: Path) -> None:
    diffusion = td.ImageDiffusion(TINY, data.shape, data.class_names)
    diffusion.save(tmp_path / "model")
    assert np.array_equal(td.load(tmp_path / "model").sample(2, **QUICK), diffusion.sample(2, **QUICK))


@pytest.mark.parametrize("side", [*range(4, 70), 96, 112, 128, 224, 256, 333])
def test_the_default_network_divides_the_images(side: int) -> None:
    assert side % network_for(side, side).divisor == 0


# --- text


def test_a_text_becomes_a_data_set_and_a_model_that_writes(texts: td.Texts, writer: td.TextDiffusion) -> None:
    assert "".join(texts.dataset.texts.values()) == TEXT
    made = writer.sample(2, prompt="On day", steps=2, seed=1, length=8)
    assert len(made) == 2
    assert all(text.startswith("On day") for text in made)
    assert made == writer.sample(2, prompt="On day", steps=2, seed=1, length=8)
    (filled,) = writer.sample(prompt="On day ___ cold.", steps=2, gap=3)
    assert filled.startswith("On day ") and filled.endswith(" cold.")  # noqa: PT018


def test_a_model_of_text_is_saved_loaded_and_measured(
    texts: td.Texts, writer: td.TextDiffusion, tmp_path: Path
) -> None:
    writer.save(tmp_path / "model")
    again = td.load(tmp_path / "model")
    assert again.sample(2, steps=2, seed=1) == writer.sample(2, steps=2, seed=1)
    metrics = evaluate(writer, texts, 3, bound_windows=2, sample={"steps": 2})
    assert metrics["judge_nll"]["floor"] > 0
    assert len(metrics["judge_nll"]["judge"]) == 64
    assert metrics["bound_bits_per_character"]["value"] > 0
    texts.save(tmp_path / "data")
    assert td.text(tmp_path / "data").dataset.metadata == texts.dataset.metadata


def test_a_file_is_read_as_the_text_in_it(texts: td.Texts, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(TEXT, encoding="utf-8")
    for place in (tmp_path / "in.txt", str(tmp_path / "in.txt"), tmp_path):
        found = td.text(place, vocabulary=260)
        assert found.dataset.metadata["content_sha256"] == texts.dataset.metadata["content_sha256"]


# --- around


def test_temporary_folders_end_with_their_data() -> None:
    data = td.images(*scans())
    folder = data.work
    assert (folder / "dataset/dataset.json").is_file()
    del data
    gc.collect()
    assert not folder.exists()


def test_arrays_are_prepared_as_the_same_arrays_in_a_file(tmp_path: Path) -> None:
    from core.images.config import ImageData

    images, labels = scans()
    np.savez(tmp_path / "in.npz", images=images, labels=labels)
    prepare_data(ImageData(source="npz", data_dir=str(tmp_path / "in.npz")), tmp_path / "out")
    of_file = td.images(tmp_path / "in.npz")
    assert td.images(tmp_path / "out").dataset.content_sha256 == of_file.dataset.content_sha256
    assert td.images(images, labels).dataset.content_sha256 == of_file.dataset.content_sha256


def test_pictures_are_enlarged_by_whole_pixels() -> None:
    images = np.arange(5 * 8 * 8, dtype=np.uint8).reshape(5, 8, 8)
    sheet = td.grid(images, columns=5)
    assert isinstance(sheet, Image.Image)
    assert sheet.size == (46 * 32, 10 * 32)
    assert np.array_equal(np.asarray(td.picture(images[3]))[::40, ::40], images[3])
    assert td.picture(np.zeros((8, 8, 3), np.uint8)).mode == "RGB"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, m, t: td.images(np.zeros((20, 8, 8)) + 7), "images: image 0 has the value 7.0; allowed are floats"),
        (lambda d, m, t: td.images(np.zeros(20)), r"images: found shape \(20,\)"),
        (lambda d, m, t: td.images(np.array(["x"] * 3)), "images: found shape"),
        (lambda d, m, t: td.images(np.zeros((20, 8, 8)), np.zeros(3)), "labels: found 3 for 20 images"),
        (lambda d, m, t: td.images(np.zeros((20, 8, 8)), ["a"] * 20), "labels: found dtype <U1"),
        (lambda d, m, t: td.images(np.zeros((20, 8, 8)), class_names=["a", "b"]), "found 2 class names and no labels"),
        (lambda d, m, t: td.images("nothing-here"), "nothing-here: no such folder"),
        (lambda d, m, t: td.images("digits", np.zeros(3)), "labels, class_names: of a folder"),
        (lambda d, m, t: td.images("digits", limt=3), "data: limt"),
        (lambda d, m, t: td.text("corpus.txt"), "corpus.txt: no such file or folder, and too short as a text"),
        (lambda d, m, t: td.text("x" * 999), "no such file or folder"),
        (lambda d, m, t: td.text(5), "text: found int; give the text itself"),
        (lambda d, m, t: td.evaluate(m, d, 0), "count"),
        (lambda d, m, t: td.train(d), "set exactly one of examples and minutes"),
        (lambda d, m, t: td.train(d, examples=64, batchsize=3), "train: batchsize"),
        (lambda d, m, t: td.train(d, examples=64, network={"chanels": [8]}), "model: network.chanels"),
        (lambda d, m, t: td.train(d, examples=64, network=Own()), "network: a module of your own"),
        (lambda d, m, t: td.train(d, examples=64, objective="masked"), "objective: found 'masked'; images allow"),
        (lambda d, m, t: td.train(np.zeros(3), examples=64), "data: found ndarray"),
        (lambda d, m, t: td.train(t, examples=64, start=m), "start: found ImageDiffusion for Texts"),
        (lambda d, m, t: m.sample(2, label=10), "sample.labels: found '10'; allowed: 0, 1"),
        (lambda d, m, t: m.sample(2, label="ten"), "label: found 'ten'; allowed: 0, 1"),
        (lambda d, m, t: m.sample(2, label=1.7), "label: found 1.7; expected a class's name or number"),
        (lambda d, m, t: m.sample(2, label=True), "label: found True"),
        (lambda d, m, t: m.sample(0), "sample: count"),
        (lambda d, m, t: m.loss(np.zeros((2, 9, 9), np.uint8)), r"the model takes uint8 \[B, 8, 8\] or floats"),
        (lambda d, m, t: m.loss(np.zeros((2, 8, 8), np.uint8), np.array([0, 10])), "labels: found 0 to 10"),
        (lambda d, m, t: td.ImageDiffusion(TINY, (8,)), r"shape: found \(8,\)"),
        (lambda d, m, t: td.evaluate(m, t), "found ImageDiffusion and Texts"),
        (lambda d, m, t: td.load("nothing"), "nothing: no champion"),
        (lambda d, m, t: td.load("./nothing"), "nothing/model.json"),
        (lambda d, m, t: td.grid(np.zeros((2, 8, 8))), "images: found float64 of shape"),
        (lambda d, m, t: m.save(ROOT / "core"), "holds something that is no model"),
        (lambda d, m, t: d.save(ROOT / "core"), "there is something already"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(
    call: Any, message: str, data: td.Images, model: td.ImageDiffusion, texts: td.Texts, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(td.UserError, match=message) as caught:
        call(data, model, texts)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
