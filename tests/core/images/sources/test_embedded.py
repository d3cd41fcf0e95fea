"""The embedded images: made anew from their sources they are the same; of MNIST as many of each digit."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from core.errors import UserError
from core.images.config import ImageData
from core.images.data import prepare_data
from core.images.dataset import SPLITS, ImageDataset
from core.images.sources import digits, mnist_small
from pipelines.compile import ROOT, _files

MNIST = ROOT.parent / "shared/data/MNIST/raw"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    out = tmp_path_factory.mktemp("mnist-small") / "data"
    prepare_data(ImageData(source="mnist-small"), out)
    return ImageDataset.open(out)


def test_every_digit_has_as_many_images_and_the_test_split_is_mnists_own(data: ImageDataset) -> None:
    assert (data.shape, data.class_names) == ((28, 28), [str(digit) for digit in range(10)])
    assert data.metadata["class_histogram"] == {"train": [540] * 10, "validation": [60] * 10, "test": [100] * 10}


def test_no_image_is_there_twice_in_one_split_or_two(data: ImageDataset) -> None:
    images = [image.tobytes() for split in SPLITS for image in data.images(split)]
    assert len(set(images)) == len(images) == 7000


def test_every_image_is_one_of_mnists_made_anew_to_the_last_byte(tmp_path: Path) -> None:
    if not MNIST.is_dir():
        pytest.skip(f"{MNIST}: real MNIST is not there")
    mnist_small.make(str(MNIST), tmp_path / "anew.npz")
    require_equal(tmp_path / "anew.npz", mnist_small.FILE)


def test_the_scans_of_digits_are_scikit_learns(tmp_path: Path) -> None:
    digits.make(tmp_path / "anew.npz")
    require_equal(tmp_path / "anew.npz", digits.FILE)


def require_equal(one: Path, other: Path) -> None:
    with np.load(one) as anew, np.load(other) as embedded:
        assert sorted(anew) == sorted(embedded)
        for name in embedded:
            np.testing.assert_array_equal(anew[name], embedded[name])


@pytest.mark.parametrize(("source", "module"), [("digits", digits), ("mnist-small", mnist_small)])
def test_a_changed_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, module: ModuleType
) -> None:
    other = tmp_path / "other.npz"
    other.write_bytes(module.FILE.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(module, "FILE", other)
    with pytest.raises(UserError, match=r"missing or changed since it was made; install textdiffusion again"):
        prepare_data(ImageData.model_validate({"source": source}), tmp_path / "data")


@pytest.mark.parametrize("source", ["digits", "mnist-small"])
def test_embedded_data_and_a_folder_are_not_both_asked_for(tmp_path: Path, source: str) -> None:
    with pytest.raises(UserError, match=f"the source `{source}` is embedded and reads no folder"):
        prepare_data(ImageData(source=source, data_dir=str(tmp_path)), tmp_path / "data")


def test_the_tag_of_the_image_hashes_files_and_licences() -> None:
    names = {path.name for path in _files(ROOT, ("core",)) if path.parent == digits.FILE.parent}
    assert names == {"digits.npz", "mnist-small.npz", "README.md"}
    licences = (digits.FILE.parent / "README.md").read_text(encoding="utf-8")
    assert "Attribution-Share Alike 3.0" in licences
    assert "Attribution 4.0" in licences
