"""A job made for a person's own data, by a look at them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from factory.job import ImageTrainingJob, TextTrainingJob, parse_job
from factory.looking import require_suitable_data
from factory.own_job import own_job

RANDOM = np.random.default_rng(5)


def made_for(place: Path) -> tuple[ImageTrainingJob | TextTrainingJob, str]:
    values, notes = own_job("own", str(place))
    job = parse_job(values, "own.yaml")
    assert isinstance(job, ImageTrainingJob | TextTrainingJob)
    require_suitable_data(job)
    assert job.gate.require == {}, "what digits must reach says nothing of other data"
    assert "digits" not in job.description
    return job, "\n".join(notes)


def test_photos_of_many_sizes_are_cropped_to_a_side_that_the_network_divides(tmp_path: Path) -> None:
    for name in ("beach", "city"):
        (tmp_path / name).mkdir()
        for index in range(20):
            height, width = RANDOM.integers(40, 90, 2)
            pixels = RANDOM.integers(0, 256, (height, width, 4 if index == 3 else 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    job, notes = made_for(tmp_path)
    assert isinstance(job, ImageTrainingJob)
    assert (job.data.source, job.data.resolution, job.data.channels) == ("folder", 32, 3)
    assert job.data.background == "white"
    assert job.model.network.obstacle(32, 32) == ""
    assert job.model.process.sigma_data == "auto"
    assert job.train.minutes is not None
    assert 5 <= job.train.minutes <= 60
    assert job.sample.autoguidance == 1 or job.train.guide_at
    assert "40 coloured images of" in notes
    assert "images a second here" in notes


def test_small_grey_arrays_keep_their_size(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", images=RANDOM.integers(0, 256, (60, 10, 10), dtype=np.uint8))
    job, notes = made_for(tmp_path / "own.npz")
    assert isinstance(job, ImageTrainingJob)
    assert (job.data.source, job.data.resolution, job.data.channels) == ("npz", 10, 1)
    assert not job.model.conditional
    assert job.sample.guidance == 1
    assert "60 grey images of 10 x 10 pixels, no classes" in notes


def test_masks_of_0_and_1_get_the_range_that_makes_them_black_and_white(tmp_path: Path) -> None:
    masks = RANDOM.integers(0, 2, (40, 8, 8), dtype=np.uint8)
    (tmp_path / "files").mkdir()
    for index, mask in enumerate(masks):
        Image.fromarray(mask).save(tmp_path / "files" / f"{index}.png")
    np.savez(tmp_path / "own.npz", images=masks / 16)
    for place, most in ((tmp_path / "files", 1.0), (tmp_path / "own.npz", 1 / 16)):
        job, notes = made_for(place)
        assert isinstance(job, ImageTrainingJob)
        assert job.data.value_range == (0.0, most)
        assert f"from 0 to {most:g} only" in notes


def test_what_is_cropped_away_is_said(tmp_path: Path) -> None:
    for index in range(30):
        Image.fromarray(RANDOM.integers(0, 256, (8, 100), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    job, notes = made_for(tmp_path)
    assert job.data.resolution == 16  # type: ignore[union-attr]
    assert "only the square in the middle of each is taken: of the longest, 8%" in notes


def test_text_in_files_of_another_suffix_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("The cat sat on the mat. " * 400)
    job, notes = made_for(tmp_path)
    assert isinstance(job, TextTrainingJob)
    assert job.data.suffixes == (".md",)
    assert job.model.context == 32
    assert "9,600 characters" in notes


@pytest.mark.parametrize(("place", "words"), [("nothing", "no such file"), ("gs://bucket/a", "is in a bucket")])
def test_data_that_cannot_be_looked_at_are_refused(tmp_path: Path, place: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        own_job("own", place if "://" in place else str(tmp_path / place))
