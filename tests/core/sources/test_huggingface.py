"""Data sets by the library `datasets`, offline: a saved folder and parquet, of images and of text.

The library is an extra; where it is not installed only its absence is tested.
"""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from core.images.config import ImageData
from core.images.data import prepare_data
from core.images.dataset import SPLITS, ImageDataset
from core.text.config import TextData
from core.text.source import read_source

RANDOM = np.random.default_rng(2)


def test_without_the_library_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs the library `datasets`: pip install 'textdiffusion\[huggingface\]'"):
        prepare_data(ImageData(source="huggingface", data_dir=str(tmp_path)), tmp_path / "out")


def test_a_place_or_a_name_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.data_dir: not set; .* or data\.dataset names one of huggingface\.co"):
        prepare_data(ImageData(source="huggingface"), tmp_path / "out")
    with pytest.raises(ValueError, match="source huggingface needs dataset"):
        TextData(source="huggingface")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return pytest.importorskip("datasets", minversion="4")


IMAGES = RANDOM.integers(0, 256, (60, 8, 8), dtype=np.uint8)
NAMES = ("six", "seven")


def image_parts(library: Any, kind: str) -> Any:
    label = {"names": library.ClassLabel(names=list(NAMES)), "strings": library.Value("string")}.get(kind)
    features = {"picture": library.Image(), **({"label": label} if label else {})}

    def part(start: int, stop: int) -> Any:
        rows: dict[str, Any] = {"picture": [Image.fromarray(image) for image in IMAGES[start:stop]]}
        if label:
            rows["label"] = [NAMES[index % 2] if kind == "strings" else index % 2 for index in range(start, stop)]
        return library.Dataset.from_dict(rows, features=library.Features(features))

    return library.DatasetDict(train=part(0, 40), valid=part(40, 48), test=part(48, 58), unsupervised=part(58, 60))


def prepared(place: Path, out: Path, **config: object) -> ImageDataset:
    values = {"source": "huggingface", "data_dir": str(place), **config}
    prepare_data(ImageData.model_validate(values), out)
    return ImageDataset.open(out)


@pytest.mark.parametrize("kind", ["names", "strings", "none"])
@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_images_of_a_data_set_come_in_its_splits_with_its_names(
    library: Any, tmp_path: Path, kind: str, form: str
) -> None:
    place = tmp_path / "in"
    place.mkdir()
    parts = image_parts(library, kind)
    if form == "saved":
        parts.save_to_disk(str(place))
    else:
        for name, rows in parts.items():
            if name != "unsupervised":
                rows.to_parquet(str(place / f"{name}-00000-of-00001.parquet"))
    data = prepared(place, tmp_path / "out")
    assert data.metadata["counts"] == {"train": 40, "validation": 8, "test": 10}
    assert data.metadata["labelled"] == (kind != "none")
    expected = {"names": ["six", "seven"], "strings": ["seven", "six"], "none": ["all"]}[kind]
    assert data.class_names == expected
    places = {image.tobytes(): index for index, image in enumerate(IMAGES)}
    for split in SPLITS:
        for image, label in zip(data.images(split), data.labels(split), strict=True):
            index = places[image.tobytes()]
            assert kind == "none" or expected[label] == NAMES[index % 2]
    if form == "saved":
        assert data.metadata["summary"]["skipped"] == {
            "parts that are no split (2 rows)": {"count": 1, "examples": ["unsupervised"]}
        }


def test_a_column_that_is_not_there_and_images_that_are_elsewhere_are_refused(library: Any, tmp_path: Path) -> None:
    image_parts(library, "names").save_to_disk(str(tmp_path / "in"))
    with pytest.raises(UserError, match=r"data\.image_column: found 'x'; .* has the columns picture, label"):
        prepared(tmp_path / "in", tmp_path / "out", image_column="x")
    rows = library.Dataset.from_dict({"image": [{"bytes": None, "path": "/etc/passwd"}] * 20})
    rows.cast_column("image", library.Image()).to_parquet(str(tmp_path / "hostile.parquet"))
    with pytest.raises(UserError, match=r"is not in the data set itself|cannot be loaded"):
        prepared(tmp_path / "hostile.parquet", tmp_path / "out")


def test_a_folder_that_is_no_data_set_and_damaged_parquet_are_one_line(library: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="neither a saved data set"):
        prepared(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "train.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="cannot be loaded by `datasets`"):
        prepared(tmp_path / "in", tmp_path / "out")
    with pytest.raises(UserError, match="no such folder"):
        prepared(tmp_path / "absent", tmp_path / "out")


def test_text_of_a_data_set_is_its_rows_with_empty_lines_between(library: Any, tmp_path: Path) -> None:
    rows = library.Dataset.from_dict({"title": ["a", "b", "c"], "text": ["first\r\n", "", "third"]})
    rows.to_parquet(str(tmp_path / "in.parquet"))
    config = TextData(source="huggingface", data_dir=str(tmp_path / "in.parquet"))
    assert "".join(read_source(config)) == "first\n\nthird\n"
    assert "".join(read_source(config.model_copy(update={"text_column": "title"}))) == "a\n\nb\n\nc\n"


def test_an_image_too_large_is_refused_before_it_is_decoded(library: Any, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (4200, 8)).save(buffer, "PNG")
    rows = library.Dataset.from_dict({"image": [{"bytes": buffer.getvalue(), "path": None}] * 20})
    rows.cast_column("image", library.Image()).save_to_disk(str(tmp_path / "in"))
    with pytest.raises(UserError, match="image 0: found images of 4200 x 8 pixels"):
        prepared(tmp_path / "in", tmp_path / "out")
