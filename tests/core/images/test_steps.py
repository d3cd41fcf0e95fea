"""Training and sampling as a pipeline runs them: folders in, folders out."""

import json
from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from core.evaluation import Sampling
from core.images.config import ImageSample
from core.images.model import load_model
from core.images.sampling import shard_drawer
from core.requests import ShardRequest
from core.storage import leases, locks
from core.storage.snapshot import is_checkpoint, write_model
from tests.core.asked import Steps

steps = Steps("images")

MODEL = {"network": {"name": "unet", "channels": [16, 32], "blocks": [1, 1], "embedding": 32, "head_channels": 16}}
TRAIN = {"examples": 256, "batch_size": 32, "learning_rate": 2e-3, "warmup_examples": 64}


def shapes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of 8x8 images that nobody confuses: a bright left half, a bright lower half."""
    labels = np.arange(count) % 2
    images = np.zeros((count, 8, 8), np.uint8)
    images[labels == 0, :, :4] = 255
    images[labels == 1, 4:, :] = 255
    return images, labels.astype(np.int64)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    images, labels = shapes(96)
    np.savez(tmp_path / "shapes.npz", images=images, labels=labels, class_names=["left", "lower"])
    steps.prepare_data({"source": "npz", "data_dir": str(tmp_path / "shapes.npz"), "overlap": 1}, tmp_path / "dataset")
    return tmp_path / "dataset"


def samples_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / "samples.npz") as arrays:
        return arrays["images"], arrays["labels"]


@pytest.fixture
def model(dataset: Path, tmp_path: Path) -> Path:
    steps.train(MODEL, TRAIN, dataset, tmp_path / "model")
    return tmp_path / "model"


def test_a_trained_model_draws_the_class_it_is_asked_for(dataset, tmp_path):
    longer = {**TRAIN, "examples": 3200, "optimizer": "muon"}
    metadata = steps.train(MODEL, longer, dataset, tmp_path / "model")
    assert metadata["examples_seen"] == 3200
    steps.sample({"count": 20}, tmp_path / "model", tmp_path / "samples")
    images, labels = samples_of(tmp_path / "samples")
    wanted = shapes(2)[0][labels].astype(float)
    assert np.abs(images - wanted).mean() < 16  # of 255
    assert labels.tolist() == [0, 1] * 10


def test_sigma_data_is_what_prepare_data_measured(model, dataset):
    std = json.loads((dataset / "dataset.json").read_text())["std"]
    process = json.loads((model / "model.json").read_text())["model"]["process"]
    assert process["sigma_data"] == pytest.approx(std, abs=1e-4)


def test_classes_are_drawn_by_their_names(model, tmp_path):
    steps.sample({"count": 4, "labels": ["lower", -1, 0]}, model, tmp_path / "samples")
    assert samples_of(tmp_path / "samples")[1].tolist() == [1, -1, 0, 1]
    with pytest.raises(
        UserError, match=r"sample\.labels: found 'lowr'; did you mean 'lower'\? allowed: left, lower, or"
    ):
        steps.sample({"count": 4, "labels": ["lowr"]}, model, tmp_path / "samples")


def test_class_1_of_labels_from_one_to_three_is_the_one_called_1(tmp_path):
    images, labels = shapes(96)
    np.savez(tmp_path / "shapes.npz", images=images, labels=labels + 1)
    steps.prepare_data({"source": "npz", "data_dir": str(tmp_path / "shapes.npz"), "overlap": 1}, tmp_path / "dataset")
    steps.train(MODEL, TRAIN, tmp_path / "dataset", tmp_path / "model")
    steps.sample({"count": 4, "labels": [1]}, tmp_path / "model", tmp_path / "samples")
    assert samples_of(tmp_path / "samples")[1].tolist() == [0] * 4
    with pytest.raises(UserError, match=r"found '0'; allowed: 1, 2, or -1"):
        steps.sample({"count": 4, "labels": [0]}, tmp_path / "model", tmp_path / "samples")


def test_images_without_classes_go_through_every_step(tmp_path):
    np.savez(tmp_path / "shapes.npz", images=shapes(96)[0])
    steps.prepare_data({"source": "npz", "data_dir": str(tmp_path / "shapes.npz"), "overlap": 1}, tmp_path / "dataset")
    steps.train_judge({"judge_epochs": 1}, tmp_path / "dataset", tmp_path / "judge")
    steps.train(MODEL, TRAIN, tmp_path / "dataset", tmp_path / "model")
    steps.sample({"count": 12}, tmp_path / "model", tmp_path / "samples")
    places = (tmp_path / name for name in ("dataset", "judge", "model", "samples", "evaluation"))
    metrics = steps.evaluate({"count": 12}, *places)
    assert np.isfinite(metrics["frechet_distance"])
    assert "class_accuracy" not in metrics


def test_a_killed_training_ends_with_the_same_weights(dataset, tmp_path, monkeypatch):
    whole = steps.train(MODEL, TRAIN, dataset, tmp_path / "whole", work=str(tmp_path / "a"))
    from core.training.loop import _Training

    step, calls = _Training._step, []

    def killed(self):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return step(self)

    often = {**TRAIN, "checkpoint_minutes": 1e-9}
    monkeypatch.setattr(_Training, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        steps.train(MODEL, often, dataset, tmp_path / "resumed", work=str(tmp_path / "b"))
    assert not (tmp_path / "resumed").exists()
    monkeypatch.undo()
    resumed = steps.train(MODEL, often, dataset, tmp_path / "resumed", work=str(tmp_path / "b"))
    assert resumed["weights_sha256"] == whole["weights_sha256"]


@pytest.mark.parametrize("sampler", ["dpmpp", "heun", "ddim", "ddpm"])
def test_a_sample_is_the_same_whatever_the_batch(model, tmp_path, sampler):
    settings = {"count": 7, "steps": 6, "sampler": sampler, "guidance": 1.5}
    steps.sample({**settings, "batch_size": 7}, model, tmp_path / "one")
    steps.sample({**settings, "batch_size": 3}, model, tmp_path / "three")
    one, three = samples_of(tmp_path / "one")[0], samples_of(tmp_path / "three")[0]
    # sums in another order differ in the last bit, which rounding to 255 levels can show as one level
    assert np.abs(one.astype(int) - three).max() <= 1
    assert len({image.tobytes() for image in one}) == 7


def test_sampling_leaves_samples_a_path_a_picture_and_facts(model, tmp_path):
    facts = steps.sample({"count": 30, "steps": 5, "guidance": 2.0}, model, tmp_path / "out")
    with np.load(tmp_path / "out" / "trajectory.npz") as path:
        frames, sigmas = path["images"], path["sigmas"]
    images, labels = samples_of(tmp_path / "out")
    assert frames.shape == (6, 20, 8, 8)
    assert (np.diff(sigmas) < 0).all()
    assert sigmas[-1] == 0
    assert np.array_equal(frames[-1], images[:20])
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert (tmp_path / "out" / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert facts["nfe"] == 10  # guidance evaluates twice
    started = steps.sample({"count": 30, "steps": 4, "guidance": 2.0, "start": "estimate"}, model, tmp_path / "start")
    assert started["nfe"] == 10
    assert not np.array_equal(samples_of(tmp_path / "start")[0], images)
    kept = json.loads((tmp_path / "out" / "sample.json").read_text())
    assert kept.keys() == Sampling.model_fields.keys()
    assert len(kept.pop("class_names")) == 2
    assert ImageSample(**kept.pop("settings")) == ImageSample(count=30, steps=5, guidance=2.0)
    assert {name: value for name, value in kept.items() if value is not None} == facts
    assert facts["weights_sha256"] == load_model(model).description["weights_sha256"]


def test_the_guide_that_training_kept_guides_sampling(dataset, model, tmp_path):
    steps.train(MODEL, {**TRAIN, "guide_at": 0.25}, dataset, tmp_path / "with", work=str(tmp_path / "work"))
    (checkpoints,) = (tmp_path / "work").iterdir()
    kept = write_model(str(checkpoints), tmp_path / "checkpoint")
    assert kept["guide_sha256"] == load_model(tmp_path / "with").description["guide_sha256"]
    settings = {"count": 4, "steps": 4, "autoguidance": 2.0}
    facts = steps.sample(settings, tmp_path / "with", tmp_path / "guided")
    assert (facts["nfe"], facts["autoguidance"]) == (8, 2.0)
    steps.sample({**settings, "autoguidance": 1.0}, tmp_path / "with", tmp_path / "plain")
    assert not np.array_equal(samples_of(tmp_path / "guided")[0], samples_of(tmp_path / "plain")[0])
    with pytest.raises(UserError, match=r"sample\.autoguidance: the model has no guide"):
        steps.sample(settings, model, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_redrawing_is_disclosed_in_facts_and_metrics_and_is_part_of_the_evaluations_terms(dataset, model, tmp_path):
    steps.train_judge({"judge_epochs": 1}, dataset, tmp_path / "judge")
    found = {}
    for name, redraw in (("plain", 0.0), ("again", 0.25)):
        facts = steps.sample({"count": 12, "steps": 4, "redraw": redraw}, model, tmp_path / name)
        places = (dataset, tmp_path / "judge", model, tmp_path / name, tmp_path / f"{name}-measured")
        found[name] = facts, steps.evaluate({"count": 12}, *places)
    (plain, unchanged), (again, measured) = found["plain"], found["again"]
    assert "redrawn" not in plain
    assert "redrawn" not in unchanged
    assert (plain["nfe"], again["nfe"], again["redrawn"], measured["redrawn"]) == (4, 10, 3, 0.25)
    assert measured["evaluation_key"] != unchanged["evaluation_key"]


def test_shards_refuse_what_would_make_a_sample_depend_on_others(model):
    request = ShardRequest(modality="images", sample={"redraw": 0.1}, model=model, size=4)
    with pytest.raises(UserError, match=r"sample\.redraw: a sample in a shard depends on its number alone"):
        shard_drawer(request)


def test_a_long_sampling_keeps_at_most_forty_frames_of_its_path(model, tmp_path):
    steps.sample({"count": 2, "steps": 100, "sampler": "ddpm", "grid": "ddpm"}, model, tmp_path / "out")
    with np.load(tmp_path / "out" / "trajectory.npz") as path:
        assert 20 <= len(path["images"]) <= 41


def test_samples_without_a_class_are_labelled_minus_one(model, tmp_path):
    steps.sample({"count": 3, "steps": 2, "labels": [-1]}, model, tmp_path / "out")
    assert samples_of(tmp_path / "out")[1].tolist() == [-1, -1, -1]


def test_a_class_the_model_does_not_know_is_refused(model, tmp_path):
    with pytest.raises(UserError, match=r"sample\.labels: found '2'; .*or -1 for none"):
        steps.sample({"labels": [2]}, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_training_goes_on_from_another_model(dataset, model, tmp_path):
    still = {**TRAIN, "examples": 32, "learning_rate": 1e-12}
    steps.train(MODEL, still, dataset, tmp_path / "next", warm_start=model)
    old, new = load_model(model).network.state_dict(), load_model(tmp_path / "next").network.state_dict()
    assert all(np.allclose(old[name], new[name], atol=1e-6) for name in old)


def test_warm_start_from_another_architecture_is_refused_naming_the_first_difference(dataset, model, tmp_path):
    other = {"network": {**MODEL["network"], "channels": [16, 16]}}
    with pytest.raises(UserError, match=r"attention\.norm\.bias: found \(32,\), the configured network has \(16,\)"):
        steps.train(other, TRAIN, dataset, tmp_path / "next", warm_start=model)


def test_the_classic_ddpm_configuration_trains_and_samples(dataset, tmp_path):
    process = {"parameterisation": "epsilon", "density": "uniform", "schedule": {"steps": 50, "beta_end": 0.3}}
    classic = {"network": {"name": "ddpm_unet", "channels": [8, 16]}, "process": process}
    steps.train(classic, {**TRAIN, "decay": "constant"}, dataset, tmp_path / "model")
    facts = steps.sample(
        {"count": 4, "sampler": "ddpm", "grid": "ddpm", "steps": 50}, tmp_path / "model", tmp_path / "out"
    )
    assert facts["nfe"] == 50


def test_a_damaged_data_set_is_refused_naming_the_file(dataset, tmp_path):
    path = dataset / "train_images.npy"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"train_images\.npy: found 1000 bytes"):
        steps.train(MODEL, TRAIN, dataset, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_checkpoint_of_a_training_is_a_model(dataset, tmp_path):
    often = {**TRAIN, "checkpoint_minutes": 1e-9, "keep": 4}
    whole = steps.train(MODEL, often, dataset, tmp_path / "model", work=str(tmp_path / "work"))
    (checkpoints,) = (tmp_path / "work").iterdir()
    assert is_checkpoint(str(checkpoints))
    assert not is_checkpoint(str(tmp_path / "model"))
    newest = write_model(str(checkpoints), tmp_path / "newest")
    assert newest == {"weights_sha256": whole["weights_sha256"], "examples_seen": 256}
    assert load_model(tmp_path / "newest").description["model"] == load_model(tmp_path / "model").description["model"]
    before = min(checkpoints.glob("manifest-*.json"))
    assert write_model(str(before), tmp_path / "before")["examples_seen"] < 256
    steps.sample({"count": 2, "steps": 2}, tmp_path / "before", tmp_path / "samples")
    before.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        write_model(str(before), tmp_path / "gone")


def test_curves_go_where_vertex_ai_looks_and_a_refusal_there_does_not_end_the_training(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("AIP_TENSORBOARD_LOG_DIR", f"{tmp_path}/board/logs/")
    steps.train(MODEL, TRAIN, dataset, tmp_path / "model")
    (there,) = (tmp_path / "board" / "logs").iterdir()
    assert there.read_bytes() == next((tmp_path / "model" / "tensorboard").iterdir()).read_bytes()
    monkeypatch.setenv("AIP_TENSORBOARD_LOG_DIR", f"{there}/not-a-folder/")
    assert steps.train(MODEL, {**TRAIN, "seed": 1}, dataset, tmp_path / "other")["examples_seen"] == 256


def test_a_second_training_of_the_same_is_told_who_holds_its_checkpoints(dataset, tmp_path, monkeypatch):
    work = tmp_path / "work"
    short = {**TRAIN, "examples": 32}
    steps.train(MODEL, short, dataset, tmp_path / "model", work=str(work))
    (folder,) = work.iterdir()
    monkeypatch.setattr(leases, "ENDING", 0.0)
    with locks.held(folder / leases.LOCK, "it"), pytest.raises(UserError, match=r"checkpoints: .*, process \d+ holds"):
        steps.train(MODEL, short, dataset, tmp_path / "again", work=str(work))
    assert not (tmp_path / "again").exists()
