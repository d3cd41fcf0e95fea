"""Images decoded by several processes: the very same data set, counts, warnings and refusals."""

from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from core.images.config import ImageData
from core.images.sources import batches
from core.images.sources.intake import Intake
from core.images.sources.source import Item
from tests.core.images.sources.test_folder import picture


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Item]:
    """Thirteen images in blocks of three: some coloured, some not square, one from memory."""
    monkeypatch.setattr(batches, "BLOCK", 3)
    made = [picture(tmp_path / f"{index}.png", "RGB" if index % 3 else "L", (8, 8 + index % 2)) for index in range(13)]
    return [Item(str(path), path.read_bytes() if index == 7 else None) for index, path in enumerate(made)]


def taken_in(files: list[Item], processes: int | None, **config: object) -> tuple[np.ndarray, dict[str, object], list]:
    intake = Intake(ImageData.model_validate({"source": "folder", "data_dir": "x", "resolution": 6, **config}))
    pixels = np.concatenate(list(batches.batches(files, intake, processes)))
    return pixels, intake.noticed(), intake.tally.warnings


def test_any_number_of_processes_take_in_the_same(files: list[Item], tmp_path: Path) -> None:
    picture(Path(files[4].name), "RGBA")
    pixels, noticed, warnings = taken_in(files, 1, channels=3)
    assert pixels.shape == (13, 6, 6, 3)
    assert noticed["counts"]["cropped"] == 6
    assert noticed["counts"]["grey"] == 5
    assert noticed["transparent"] == [files[4].name]
    for processes in (None, 2):
        others = taken_in(files, processes, channels=3)
        assert np.array_equal(others[0], pixels)
        assert others[1:] == (noticed, warnings)


def test_the_first_image_that_is_wrong_is_named_by_any_number_of_processes(files: list[Item]) -> None:
    for path in (files[10].name, files[5].name):
        Path(path).write_bytes(b"no image")
    for processes in (1, 2):
        with pytest.raises(UserError, match=r"5\.png: unreadable image: damaged"):
            taken_in(files, processes, channels=3)
        with pytest.raises(UserError, match=r"1\.png: is coloured, while .*0\.png is grey"):
            taken_in(files, processes, channels="auto")
        with pytest.raises(UserError, match=r"1\.png: 8 x 9 pixels, while .*0\.png has 8 x 8"):
            taken_in(files, processes, channels=3, resolution=None)


def test_no_images_are_no_batches() -> None:
    assert list(batches.batches([], Intake(ImageData()))) == []
