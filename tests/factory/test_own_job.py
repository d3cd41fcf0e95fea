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


def test_prose_of_every_suffix_is_read_together_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "c.txt", "d.rst"):
        (tmp_path / name).write_text("The cat sat on the mat. " * 200)
    (tmp_path / "e.json").write_text("{}")
    job, notes = made_for(tmp_path)
    assert isinstance(job, TextTrainingJob)
    assert set(job.data.suffixes) == {".md", ".txt", ".rst"}
    assert "1 .txt, 2 .md, 1 .rst files; left out: 1 .json (data.suffixes)" in notes
    assert "19,203 characters" in notes


def test_without_prose_the_suffixes_of_text_are_read_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("print('the cat sat on the mat')\n" * 300)
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.7\n\xff\xfe\x00")
    job, notes = made_for(tmp_path)
    assert isinstance(job, TextTrainingJob)
    assert job.data.suffixes == (".py",)
    assert "left out: 1 .pdf" in notes


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_data_sets_of_hugging_face_become_jobs_of_images_or_text(tmp_path: Path, form: str) -> None:
    library = pytest.importorskip("datasets", minversion="4")
    label = library.ClassLabel(names=["circle", "square"])
    rows = {
        "images": {"image": [Image.fromarray(each) for each in RANDOM.integers(0, 256, (60, 10, 12), dtype=np.uint8)]},
        "text": {"text": ["The cat sat on the mat. " * 40] * 20, "title": ["cat"] * 20},
    }
    rows["images"]["label"] = [index % 2 for index in range(60)]
    features = {"images": library.Features({"image": library.Image(), "label": label}), "text": None}
    for kind, columns in rows.items():
        data = library.Dataset.from_dict(columns, features=features[kind])
        if form == "saved":
            data.save_to_disk(str(tmp_path / kind))
        else:
            (tmp_path / kind).mkdir()
            data.to_parquet(str(tmp_path / kind / "train-00000-of-00001.parquet"))
        job, notes = made_for(tmp_path / kind)
        assert (job.modality, job.data.source) == (kind, "huggingface")
        assert ("60 grey images of 12 x 10 pixels, 2 classes" if kind == "images" else "characters of text") in notes


@pytest.mark.parametrize("images", [300, 400])  # a fifth is of the test split
def test_too_few_test_images_for_a_verdict_are_said_with_the_way_out(tmp_path: Path, images: int) -> None:
    np.savez(tmp_path / "own.npz", images=RANDOM.integers(0, 256, (images, 10, 10), dtype=np.uint8))
    _, notes = made_for(tmp_path / "own.npz")
    assert ("textdiffusion promote own@1; gate.first_floors: 0" in notes) == (images == 300)
    assert "test images are few (data.test_fraction)" in notes


@pytest.mark.parametrize("names", [[], ["a.pdf", "b.pdf", "c"]])
def test_a_place_without_images_and_text_is_refused_by_what_is_there(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"\xff\xd8\x00")
    words = "has neither images nor text; there are 2 .pdf, 1 without a suffix" if names else "is empty"
    with pytest.raises(UserError, match=words):
        own_job("own", str(tmp_path))


@pytest.mark.parametrize(("place", "words"), [("nothing", "no such file"), ("gs://bucket/a", "is in a bucket")])
def test_data_that_cannot_be_looked_at_are_refused(tmp_path: Path, place: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        own_job("own", place if "://" in place else str(tmp_path / place))
