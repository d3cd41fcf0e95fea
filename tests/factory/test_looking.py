"""What local data say against a job, before anything runs."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from core import storage
from core.config import merge
from core.errors import UserError
from factory.job import AnyJob, parse_job
from factory.looking import require_suitable_data
from tests.fakes.gcs import GcsServer

RANDOM = np.random.default_rng(7)
LABELS = np.repeat([0, 1], 20)
TEXT = "".join(RANDOM.choice(list("abcdefgh \n"), 4000))


def job_of(place: Path | str, **sections: object) -> AnyJob:
    images = {
        "job": "own",
        "description": "own data",
        "modality": "images",
        "data": {"source": "npz", "data_dir": str(place)},
        "model": {"network": {"channels": [32, 64], "blocks": [1, 1]}},
        "train": {"examples": 8},
        "gate": {"metric": "frechet_distance"},
    }
    return parse_job(merge(images, sections), "own.yaml")


def text_job_of(place: Path, **sections: object) -> AnyJob:
    text = {
        "job": "own",
        "description": "own data",
        "modality": "text",
        "data": {"source": "file", "data_dir": str(place), "tokenizer": {"kind": "characters"}},
        "train": {"examples": 8},
        "autoregressive": {"examples": 8},
        "evaluate": {"spans": [8]},
        "gate": {"metric": "bits_per_character_4"},
    }
    return parse_job(merge(text, sections), "own.yaml")


@pytest.mark.parametrize(
    ("arrays", "sections", "words"),
    [
        ({"labels": LABELS, "class_names": ["cat", "dog"]}, {"sample": {"labels": ["dgo"]}}, "did you mean 'dog'"),
        ({}, {"sample": {"labels": [3]}}, "the model has no classes"),
        ({}, {"gate": {"require": {"class_accuracy": 0.9}}}, "class_accuracy is not measured: .* has no classes"),
        ({"images": (40, 33, 33), "labels": LABELS}, {}, "images of 33x33 pixels.*divisible by 2"),
        (
            {"labels": np.repeat([0, 1, 2], [18, 4, 18])},
            {"data": {"test_fraction": 0.05}},
            "class '.', of which .* none in the test",
        ),
        ({"labels": LABELS[:-1]}, {}, "40 `images`, but 39 `labels`"),
    ],
)
def test_images_that_do_not_suit_the_job_are_refused_before_it_runs(
    tmp_path: Path, arrays: dict[str, object], sections: dict[str, object], words: str
) -> None:
    shape = arrays.get("images", (40, 8, 8))
    images = RANDOM.integers(0, 256, shape, dtype=np.uint8)  # type: ignore[arg-type]
    np.savez(tmp_path / "own.npz", **{**arrays, "images": images})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=words):
        require_suitable_data(job_of(tmp_path / "own.npz", **sections))


def test_images_that_suit_the_job_are_not_refused(tmp_path: Path) -> None:
    images = RANDOM.integers(0, 256, (40, 33, 33), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", images=images, labels=LABELS)
    require_suitable_data(job_of(tmp_path / "own.npz", data={"resolution": 32}, sample={"labels": [1, -1]}))


def test_images_in_an_archive_and_in_a_bucket_are_looked_at_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = RANDOM.integers(0, 256, (40, 33, 33), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", images=images, labels=LABELS)
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        archive.write(tmp_path / "own.npz", "own.npz")
    with GcsServer() as server:
        server.create_bucket("bucket")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        storage.write_bytes("gs://bucket/own.npz", (tmp_path / "own.npz").read_bytes())
        storage.write_bytes("gs://bucket/damaged.npz", b"one")
        with pytest.raises(UserError, match=r"damaged.npz: damaged or not an npz file"):
            require_suitable_data(job_of("gs://bucket/damaged.npz"))
        for place in (str(tmp_path / "own.zip"), "gs://bucket/own.npz"):
            with pytest.raises(UserError, match=r"images of 33x33 pixels.*divisible by 2"):
                require_suitable_data(job_of(place))


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"sample": {"prompts": ["abc", "abß ___"]}}, "'abß ___' has 'ß', which .* does not have"),
        ({"data": {"limit": 1000}, "evaluate": {"spans": []}}, "validation split has 49 tokens at most"),
        ({"evaluate": {"spans": [8, 100]}}, "evaluate.spans: the test split of .* too short for spans of 100"),
    ],
)
def test_a_text_that_does_not_suit_the_job_is_refused_before_it_runs(
    tmp_path: Path, sections: dict[str, object], words: str
) -> None:
    (tmp_path / "own.txt").write_text(TEXT)
    require_suitable_data(text_job_of(tmp_path / "own.txt", sample={"prompts": ["abc", "a ___ b"]}))
    with pytest.raises(UserError, match=words):
        require_suitable_data(text_job_of(tmp_path / "own.txt", **sections))


def test_byte_pairs_know_every_prompt(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text(TEXT)
    data = {"tokenizer": {"kind": "bpe", "vocabulary": 300}}
    require_suitable_data(text_job_of(tmp_path / "own.txt", data=data, sample={"prompts": ["ß"]}))
