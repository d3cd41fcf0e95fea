"""Pixels that would come out black or flat are refused with the setting that mends them, and the setting does."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from core.images.config import ImageData
from core.images.data import prepare_data
from core.images.dataset import SPLITS, ImageDataset
from tests.core.images.sources.test_folder import prepared, refused

RANDOM = np.random.default_rng(5)


def save(tmp_path: Path, values: np.ndarray) -> None:
    for index, value in enumerate(values):
        path = tmp_path / "in" / "cat" / f"{index}.{'tif' if value.dtype.kind == 'f' else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(value).save(path)


def npz(tmp_path: Path, values: np.ndarray, **config: object) -> ImageDataset:
    np.savez(tmp_path / "in.npz", images=values)
    section = {"source": "npz", "data_dir": str(tmp_path / "in.npz"), **config}
    prepare_data(ImageData.model_validate(section), tmp_path / "out")
    return ImageDataset.open(tmp_path / "out")


def stored(data: ImageDataset) -> np.ndarray:
    return np.concatenate([data.images(split) for split in SPLITS])


@pytest.mark.parametrize(
    ("kind", "most", "found"),
    [
        (np.uint8, 1, "values from 0 to 1 of 0 to 255"),
        (np.uint16, 4095, "values from 0 to 4095 of 0 to 65535"),
        (np.float32, 0.1, "values from 0 to 0.1 of 0 to 1"),
    ],
)
def test_masks_and_12_bits_are_refused_with_the_setting_that_mends_them(
    tmp_path: Path, kind: type, most: float, found: str
) -> None:
    values = (RANDOM.integers(0, 2, (30, 8, 8)) * most).astype(kind)
    save(tmp_path, values)
    line = refused(tmp_path)
    assert f"{found}, so images would be nearly flat; set data.value_range: [0, {most:g}]" in line
    data = prepared(tmp_path, value_range=[0, most])
    assert sorted(image.tobytes() for image in stored(data)) == sorted(
        np.where(value > 0, 255, 0).astype(np.uint8).tobytes() for value in values
    )


def test_a_bright_and_flat_set_is_refused_too(tmp_path: Path) -> None:
    save(tmp_path, RANDOM.integers(250, 256, (30, 8, 8)).astype(np.uint8))
    assert "values from 250 to 255 of 0 to 255, so images would be nearly flat" in refused(tmp_path)


def test_half_the_range_is_a_warning_in_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = RANDOM.integers(0, 100, (30, 8, 8)).astype(np.uint8)
    values[0, 0, :2] = 0, 99
    save(tmp_path, values)
    assert prepared(tmp_path).metadata["value_range"][1] <= 99
    assert "warning: pixels have values from 0 to 99 of 0 to 255 only; data.value_range: [0, 99] would" in (
        capsys.readouterr().err
    )


def test_arrays_of_any_range_are_scaled_and_what_is_outside_is_clipped_and_counted(tmp_path: Path) -> None:
    values = np.tile(np.array([-1.0, -0.5, 0, 1.0], np.float32), (40, 4, 1))
    with pytest.raises(
        UserError, match=r"image 0 has the value -1\.0; allowed are floats from 0 to 1, or what data\.v"
    ):
        npz(tmp_path, values)
    values[3, 0, 0] = -7
    data = npz(tmp_path, values, value_range=[-1, 1], overlap=1)
    assert np.unique(stored(data)).tolist() == [0, 64, 128, 255]
    assert data.metadata["summary"]["clipped"] == 1


def test_an_npz_without_labels_is_an_unconditional_data_set(tmp_path: Path) -> None:
    data = npz(tmp_path, RANDOM.integers(0, 256, (40, 8, 8), dtype=np.uint8))
    assert (data.metadata["labelled"], data.classes) == (False, 1)


def test_a_range_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(ValueError, match="the first value must be below the second"):
        ImageData(value_range=(1.0, 0.0))


def overlapping(tmp_path: Path, **settings: float) -> ImageDataset:
    """Forty images of training, of which three are test images too, beside five that are not."""
    values = RANDOM.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "in.npz", x_train=values, x_test=np.concatenate([values[:3], 255 - values[:5]]))
    prepare_data(ImageData(source="npz", data_dir=str(tmp_path / "in.npz"), **settings), tmp_path / "out")
    return ImageDataset.open(tmp_path / "out")


def test_held_out_images_that_are_training_images_too_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"of 8 test images equal one of training.*at most 5 % may \(data.overlap\)"):
        overlapping(tmp_path)
    assert not (tmp_path / "out").exists()


def test_held_out_images_that_are_training_images_too_are_counted_where_they_may_be(tmp_path: Path) -> None:
    data = overlapping(tmp_path, overlap=1)
    held = {image.tobytes() for split in ("validation", "test") for image in data.images(split)}  # type: ignore[arg-type]
    both = held & {image.tobytes() for image in data.images("train")}
    assert data.metadata["summary"]["leaked"] == len(both)
    assert data.metadata["summary"]["duplicates"] == 3
