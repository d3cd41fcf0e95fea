"""Images in shards: prepared, read and trained on as if they were one array, through a cache that is smaller."""

import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core import storage
from core.config import validate
from core.errors import UserError
from core.images import by_shard
from core.images.config import ImageData
from core.images.contents import repeats
from core.images.data import prepare_data
from core.images.dataset import SPLITS, ImageDataset
from core.images.judge import to_network
from core.images.neighbours import nearest_images
from core.images.shards import WINDOW, Shards, order_of
from core.storage import remote
from core.training.loop import _Training
from tests.core.images.test_data import class_folders
from tests.core.images.test_steps import MODEL, TRAIN, steps
from tests.fakes.gcs import GcsServer

SHARD = 100 * 64 / 1e6  # megabytes: of 100 digits
GIGABYTES = 10 * (100 * 64 + 128) / 1e9  # a cache of ten shards


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    out = tmp_path_factory.mktemp("plain") / "dataset"
    prepare_data(ImageData(), out)
    return ImageDataset.open(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as shards beside dataset.json."""
    return digits(tmp_path_factory.mktemp("shards") / "dataset")


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A place that is read through a cache of ten shards."""
    monkeypatch.setenv("TEXTDIFFUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TEXTDIFFUSION_CACHE_GB", str(GIGABYTES))
    return str(tmp_path / "disk")


def digits(out: Path, place: str | None = None, **shards: object) -> Path:
    config = ImageData.model_validate({"shards": {"above_gb": 0, "mb": SHARD, **shards}})
    prepare_data(config, out, place)
    return out


def cached(tmp_path: Path) -> list[int]:
    """Bytes of the files in the cache."""
    sizes = []
    for path in (tmp_path / "cache" / "shards").iterdir():
        with suppress(FileNotFoundError):  # one that was on its way is there by now
            sizes += [path.stat().st_size] if path.suffix != ".lock" else []
    return sizes


def test_shards_hold_what_one_array_would(plain: ImageDataset, folder: Path) -> None:
    data = ImageDataset.open(folder)
    assert not (folder / "train_images.npy").exists()
    for split in SPLITS:
        images = data.images(split)
        assert isinstance(images, Shards)
        assert np.array_equal(images, plain.images(split))
        assert np.array_equal(data.labels(split), plain.labels(split))
        assert np.array_equal(np.concatenate(list(data.batches(split, 70))), plain.images(split))
    for key in ("counts", "mean", "std", "value_range", "class_histogram", "split_sha256"):
        assert data.metadata[key] == plain.metadata[key]


def test_shards_are_indexed_as_an_array_is(plain: ImageDataset, folder: Path) -> None:
    images, array = ImageDataset.open(folder).images("train"), plain.images("train")
    chosen = np.random.default_rng(0).integers(-len(array), len(array), (7, 3))
    odd = np.arange(len(array)) % 2 == 1
    for index in (3, -1, slice(95, 310), slice(None, None, -50), slice(5, 5), chosen, odd, [], np.int64(200)):
        assert np.array_equal(images[index], array[index])
    for index in (len(array), [0, -len(array) - 1], 0.5, "x"):
        with pytest.raises(IndexError):
            images[index]
    assert (len(images), images.shape, images.nbytes, images.ndim) == (len(array), array.shape, array.nbytes, 3)


def test_what_measures_images_reads_shards(plain: ImageDataset, folder: Path) -> None:
    images, array = ImageDataset.open(folder).images("train"), plain.images("train")
    repeated = repeats(images)
    assert np.array_equal(repeated, repeats(array))
    queries = plain.images("test")[:20]
    found, expected = (nearest_images(queries, training, repeated) for training in (images, array))
    assert np.array_equal(found.indices, expected.indices)
    assert torch.equal(*(to_network(one[:10], torch.device("cpu")) for one in (images, array)))


def test_a_cache_smaller_than_the_data_serves_an_epoch(
    plain: ImageDataset, far: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is that of shards on this disk, each image comes once, and the disk never holds more than it may."""
    near = ImageDataset.open(digits(tmp_path / "near")).images("train")
    data = ImageDataset.open(digits(tmp_path / "far", far))
    assert not (tmp_path / "far" / "shards").exists()
    assert data.metadata["shards"] == {"root": far}
    images, array = data.images("train"), plain.images("train")
    assert isinstance(images, Shards)
    order, other = order_of(images, 5), order_of(near, 5)
    seen = []
    for start in range(0, len(array), 64):
        chosen = order(start, start + 64).numpy()
        assert np.array_equal(chosen, other(start, start + 64))
        assert np.array_equal(images[chosen], array[chosen])
        assert sum(cached(tmp_path)) <= GIGABYTES * 1e9
        seen += chosen.tolist()
    assert sorted(seen[: len(array)]) == list(range(len(array)))
    for thread in images._fetching:
        thread.join()


def test_a_killed_training_through_a_cache_ends_with_the_weights_of_one_without(
    far: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = {"shards": {"above_gb": 0, "mb": SHARD}, "limit": 500}
    steps.prepare_data(shards, tmp_path / "near")
    steps.prepare_data({**shards, "shards": {**shards["shards"], "place": far}}, tmp_path / "far")
    settings = {**TRAIN, "examples": 480}
    monkeypatch.delenv("TEXTDIFFUSION_CACHE_GB")
    whole = steps.train(MODEL, settings, tmp_path / "near", tmp_path / "whole", work=str(tmp_path / "a"))
    monkeypatch.setenv("TEXTDIFFUSION_CACHE_GB", str(GIGABYTES))
    step, calls = _Training._step, []

    def killed(self: _Training) -> None:
        calls.append(1)
        if len(calls) == 14:  # in the second window
            raise KeyboardInterrupt
        step(self)

    often = {**settings, "checkpoint_minutes": 1e-9}
    monkeypatch.setattr(_Training, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        steps.train(MODEL, often, tmp_path / "far", tmp_path / "resumed", work=str(tmp_path / "b"))
    monkeypatch.setattr(_Training, "_step", step)
    resumed = steps.train(MODEL, often, tmp_path / "far", tmp_path / "resumed", work=str(tmp_path / "b"))
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert resumed["data_sha256"] == whole["data_sha256"]


def test_every_step_reads_shards(folder: Path, tmp_path: Path) -> None:
    steps.train_judge({"judge_epochs": 0.2}, folder, tmp_path / "judge")
    steps.train(MODEL, TRAIN, folder, tmp_path / "model")
    steps.sample({"count": 100, "steps": 2}, tmp_path / "model", tmp_path / "samples")
    places = (tmp_path / name for name in ("judge", "model", "samples", "evaluation"))
    metrics = steps.evaluate({"count": 100}, folder, *places)
    assert np.isfinite(metrics["frechet_distance"])
    assert metrics["nearest_neighbour"] > 0


def test_the_next_window_is_fetched_while_this_one_is_read(far: str, tmp_path: Path) -> None:
    images = ImageDataset.open(digits(tmp_path / "far", far)).images("train")
    assert isinstance(images, Shards)
    order_of(images, 5)(0, 1)
    for thread in images._fetching:
        thread.join()
    assert len(cached(tmp_path)) == 2 * WINDOW


def test_shards_in_a_bucket_are_read_from_there_and_not_written_twice(
    plain: ImageDataset, far: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with GcsServer() as gcs:
        gcs.create_bucket("data")
        for name, value in gcs.environment.items():
            monkeypatch.setenv(name, value)
        settings = {"mb": 10 * SHARD, "place": "gs://data/digits"}
        first = ImageDataset.open(digits(tmp_path / "first", **settings))
        before = {name: facts["mtime"] for name, facts in remote.details("gs://data/digits").items()}
        monkeypatch.setenv("TEXTDIFFUSION_CACHE_GB", "1")
        assert np.array_equal(first.images("test"), plain.images("test"))
        again = ImageDataset.open(digits(tmp_path / "again", **settings))
        assert {name: facts["mtime"] for name, facts in remote.details("gs://data/digits").items()} == before
        assert (again.content_sha256, len(before)) == (first.content_sha256, 4)
        assert not (tmp_path / "again" / "shards").exists()


def test_a_damaged_shard_is_refused_when_it_is_read(folder: Path, far: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    shutil.copytree(folder, here)
    place = digits(tmp_path / "far", far)
    for root, dataset in ((here / "shards", here), (far, place)):
        name = ImageDataset.open(dataset)._index.splits["train"][0].name
        content = bytearray(storage.read_bytes(f"{root}/{name}"))
        content[-1] ^= 1
        storage.write_bytes(f"{root}/{name}", bytes(content))
        images = ImageDataset.open(dataset).images("train")
        assert images[150].any()
        with pytest.raises(UserError, match=rf"{name}: its SHA-256 is not the one"):
            images[0]
        storage.remove(f"{root}/{name}")
        with pytest.raises(UserError, match=rf"{name}: cannot be read"):
            ImageDataset.open(dataset).images("train")[0]
    (here / "shards.json").write_text((here / "shards.json").read_text().replace("100", "101", 1))
    with pytest.raises(UserError, match=r"shards.json: its SHA-256"):
        ImageDataset.open(here)


def test_a_cache_too_small_for_a_training_says_what_is_needed(
    far: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ImageDataset.open(digits(tmp_path / "far", far))
    for value, line in ((str(GIGABYTES / 2), "TEXTDIFFUSION_CACHE_GB: .* are too few"), ("much", "found 'much'")):
        monkeypatch.setenv("TEXTDIFFUSION_CACHE_GB", value)
        with pytest.raises(UserError, match=line):
            data.images("train")


def test_files_that_come_sorted_by_class_are_shuffled_over_all_shards(tmp_path: Path) -> None:
    place = class_folders(tmp_path / "in", each=60)
    base = {"source": "folder", "data_dir": str(place)}
    prepare_data(ImageData.model_validate(base), tmp_path / "plain")
    shards = {"above_gb": 0, "mb": 12 * 64 / 1e6, "place": str(tmp_path / "s")}
    prepare_data(ImageData.model_validate({**base, "shards": shards}), tmp_path / "out")
    data, plain = ImageDataset.open(tmp_path / "out"), ImageDataset.open(tmp_path / "plain")
    assert len(list((tmp_path / "s").glob("*.npy"))) == sum(map(len, data._index.splits.values()))
    assert data.metadata["summary"]["read"] == plain.metadata["summary"]["read"] == 120
    assert data.metadata["summary"]["warnings"] == []
    for start in range(0, data.count("train"), 12):
        assert set(data.labels("train")[start : start + 12]) == {0, 1}
    for split in SPLITS:  # the same split, in another order
        pairs = [zip(one.labels(split).tolist(), one.images(split), strict=True) for one in (data, plain)]
        first, second = (sorted((label, image.tobytes()) for label, image in each) for each in pairs)
        assert first == second


def test_arrays_that_come_sorted_by_class_are_warned_of(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(200) // 100)
    settings = {"source": "npz", "data_dir": str(tmp_path / "x.npz"), "shards": {"above_gb": 0, "mb": SHARD}}
    prepare_data(ImageData.model_validate(settings), tmp_path / "out")
    assert "one after the other" in ImageDataset.open(tmp_path / "out").metadata["summary"]["warnings"][0]


def test_the_report_shows_training_images_of_a_sharded_set(folder: Path) -> None:
    images, labels = (np.load(folder / f"examples_{name}.npy") for name in ("images", "labels"))
    assert np.bincount(labels).tolist() == [24] * 10
    data = ImageDataset.open(folder)
    for label in range(10):
        first = np.flatnonzero(data.labels("train") == label)[:24]
        assert np.array_equal(images[labels == label], data.images("train")[first])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Two classes of files as shards of twelve, and what one process makes of them."""
    place = class_folders(tmp_path_factory.mktemp("files") / "in", each=60)
    Image.fromarray(np.full((8, 8), 9, np.uint8)).save(place / "cat" / "0.png")
    return {"source": "folder", "data_dir": str(place), "split_seed": 3, "shards": {"above_gb": 0, "mb": 12 * 64 / 1e6}}


def written(files: dict[str, object], out: Path, **shards: object) -> dict[str, object]:
    config = ImageData.model_validate({**files, "shards": {**files["shards"], **shards}})  # type: ignore[dict-item]
    prepare_data(config, out)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_the_data_set_is_the_same_whoever_writes_its_shards(files: dict[str, object], tmp_path: Path) -> None:
    """Byte by byte, dataset.json and its hashes included: one process, two, Beam's local runner with one and two."""
    pytest.importorskip("apache_beam")
    one = written(files, tmp_path / "one", workers=1)
    assert written(files, tmp_path / "two", workers=2) == one
    assert written(files, tmp_path / "beam", engine="beam", workers=1) == one
    assert written(files, tmp_path / "beams", engine="beam", workers=2) == one
    in_turn = tmp_path / "turn"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_shard, "can_be_read", lambda source: False)
        assert written(files, in_turn) == one


def test_broken_files_are_named_by_beam_and_only_their_shards_done_again(
    files: dict[str, object], tmp_path: Path
) -> None:
    pytest.importorskip("apache_beam")
    shutil.copytree(str(files["data_dir"]), tmp_path / "in")
    broken = tmp_path / "in" / "dog" / "7.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:40])
    mine = {**files, "data_dir": str(tmp_path / "in")}
    place = tmp_path / "shards"
    for shards in ({"workers": 1}, {"engine": "beam", "workers": 2, "place": str(place)}):
        with pytest.raises(UserError, match=r"dog/7.png: unreadable image"):
            written(mine, tmp_path / "out", **shards)
        assert not (tmp_path / "out").exists()
    answered = len(storage.list_files(place / ".work" / "answered"))
    assert answered == len(list(place.glob("*.npy"))) > 5
    broken.write_bytes(whole)
    written(mine, tmp_path / "out", engine="beam", workers=1, place=str(place))
    assert not (place / ".work").exists()
    assert len(list(place.glob("*.npy"))) == answered + 1
    ImageDataset.open(tmp_path / "out").images("train")[:]


def test_beam_is_refused_where_images_are_no_files() -> None:
    with pytest.raises(UserError, match=r"shards.engine: beam reads images that are files .*; found source: digits"):
        validate(ImageData, {"shards": {"engine": "beam"}}, "data")
