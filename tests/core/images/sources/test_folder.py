"""Folders as people have them: splits by any name, stray files, links, images without classes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from core.images.config import ImageData
from core.images.data import prepare_data
from core.images.dataset import ImageDataset

RANDOM = np.random.default_rng(3)


def picture(path: Path, mode: str = "L", size: tuple[int, int] = (8, 8), **options: object) -> Path:
    """An image of noise at `path`, whose folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size[::-1] if mode == "L" else (*size[::-1], len(mode))
    Image.fromarray(RANDOM.integers(0, 256, shape, dtype=np.uint8), mode).save(path, **options)  # type: ignore[arg-type]
    return path


def pictures(folder: Path, count: int = 20) -> None:
    for index in range(count):
        picture(folder / f"{index}.png")


def prepared(tmp_path: Path, **config: object) -> ImageDataset:
    values = {"source": "folder", "data_dir": str(tmp_path / "in"), **config}
    prepare_data(ImageData.model_validate(values), tmp_path / "out")
    return ImageDataset.open(tmp_path / "out")


def refused(tmp_path: Path, **config: object) -> str:
    with pytest.raises(UserError) as caught:
        prepared(tmp_path, **config)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Training", "valid", "Testing"),
        ("TRAIN", "dev", "TEST"),
        ("train", "Validation", "tst"),
    ],
)
def test_splits_are_known_by_any_of_their_names_and_stray_files_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], train: str, validation: str, test: str
) -> None:
    for part, count in ((train, 20), (validation, 5), (test, 6)):
        for name in ("cat", "dog"):
            pictures(tmp_path / "in" / part / name, count)
    for stray in (".DS_Store", "README.md", "labels.csv", f"{train}/.DS_Store", f"{test}/cat/Thumbs.db"):
        (tmp_path / "in" / stray).write_text("not an image")
    (tmp_path / "in" / "annotations").mkdir()
    (tmp_path / "in" / "annotations" / "boxes.xml").write_text("<boxes/>")
    data = prepared(tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert data.metadata["counts"] == {"train": 40, "validation": 10, "test": 12}
    assert {reason: entry["count"] for reason, entry in data.metadata["summary"]["skipped"].items()} == {
        "hidden": 3,
        "no images": 3,
    }
    said = capsys.readouterr().err
    assert "data: 62 grey images of 8 x 8 pixels; 2 classes: cat 31, dog 31\n" in said
    assert "split: train 40, validation 10, test 12\n" in said
    assert "read 62 images; skipped 6: 3 hidden" in said


def test_a_training_folder_alone_is_no_class(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        pictures(tmp_path / "in" / "train" / name)
    data = prepared(tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert sum(data.metadata["counts"].values()) == 40


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("cat", "dog", "test"), "'test' is named like a split, beside the folders of images 'cat', 'dog'"),
        (
            ("train/cat", "test/cat", "extra"),
            "'test', 'train' are named like a split, beside the folders of images 'extra'",
        ),
        (("test/cat", "val/cat"), "found 'test', 'val', but no images of a training split"),
        (("train/cat", "val/cat", "dev/cat"), "'dev' and 'val' are both the validation split"),
        (("train/train/cat", "train/test/cat"), "train/test: a class named like a split"),
        (("train/cat", "test"), "test: has no class folders, while train has some"),
        (("train", "test/cat"), "test: has class folders, while train has none"),
        (("train/cat", "train/dog", "test/cat"), "test: class folders differ from those of train: 'dog'"),
    ],
)
def test_a_split_is_never_taken_for_a_class(tmp_path: Path, folders: tuple[str, ...], words: str) -> None:
    for folder in folders:
        pictures(tmp_path / "in" / folder, 3)
    assert words in refused(tmp_path)


def test_a_flat_folder_is_an_unconditional_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(tmp_path / "in", 40)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    (tmp_path / "in" / "empty").mkdir()
    data = prepared(tmp_path)
    assert (data.metadata["labelled"], data.class_names) == (False, ["all"])
    assert set(data.labels("train")) == {0}
    assert "no classes: an unconditional data set" in capsys.readouterr().err


def test_linked_folders_inside_are_read_once_and_others_are_told(tmp_path: Path) -> None:
    pictures(tmp_path / "in" / ".store" / "cat")
    pictures(tmp_path / "in" / "dog")
    pictures(tmp_path / "elsewhere")
    (tmp_path / "in" / "cat").symlink_to("./.store/cat")
    (tmp_path / "in" / "dog" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "dog" / "again").symlink_to(tmp_path / "in" / "dog")
    (tmp_path / "in" / "owl").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "dog" / "gone.png").symlink_to(tmp_path / "in" / "nothing.png")
    (tmp_path / "in" / "dog" / "passwd.png").symlink_to("/etc/passwd")
    data = prepared(tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert sum(data.metadata["counts"].values()) == 40
    assert {reason: entry["count"] for reason, entry in data.metadata["summary"]["skipped"].items()} == {
        "broken links": 1,
        "hidden": 1,
        "links out of the folder": 2,
        "links to a folder that is read already": 2,
    }


def test_names_of_classes_may_be_set(tmp_path: Path) -> None:
    for name in ("0", "1"):
        pictures(tmp_path / "in" / name)
    assert prepared(tmp_path, class_names=["zero", "one"]).class_names == ["zero", "one"]
    with pytest.raises(UserError, match="found 3 class names and 2 classes"):
        prepared(tmp_path, class_names=["zero", "one", "two"])
