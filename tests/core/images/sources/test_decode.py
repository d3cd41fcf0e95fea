"""Image files of every kind that is read: the right pixels, and what was done to them is counted."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import ExifTags, Image

from core.images.dataset import SPLITS
from core.images.sources import decode
from tests.core.images.sources.test_folder import picture, pictures, prepared, refused

GRADIENT = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)


def stored(data) -> np.ndarray:  # type: ignore[no-untyped-def]
    return np.concatenate([data.images(split) for split in SPLITS])


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".tif", ".TIFF", ".gif", ".pgm", ".png", ".jfif"])
def test_every_format_beside_pngs_is_read(tmp_path: Path, suffix: str) -> None:
    pictures(tmp_path / "in" / "cat")
    options = {".webp": {"lossless": True}, ".jfif": {"format": "JPEG", "quality": 100}}.get(suffix, {})
    Image.fromarray(GRADIENT).save(tmp_path / "in" / "cat" / f"odd{suffix}", **options)
    data = prepared(tmp_path, channels=1)
    assert sum(data.metadata["counts"].values()) == 21
    distance = np.abs(stored(data).astype(int) - GRADIENT).max((1, 2)).min()
    assert distance <= (3 if suffix == ".jfif" else 1)


def test_the_first_page_and_the_first_frame_are_taken_and_counted(tmp_path: Path) -> None:
    pictures(tmp_path / "in" / "cat")
    first, second = Image.fromarray(GRADIENT), Image.fromarray(255 - GRADIENT)
    for name in ("pages.tif", "frames.gif"):
        first.save(tmp_path / "in" / "cat" / name, save_all=True, append_images=[second])
    data = prepared(tmp_path)
    assert data.metadata["summary"]["first_frames"] == 2
    assert sum((image == GRADIENT).all() for image in stored(data)) == 2
    assert not any((image == 255 - GRADIENT).all() for image in stored(data))


def test_heic_without_its_extra_is_skipped_with_the_line_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    pictures(tmp_path / "in" / "cat", 20)
    (tmp_path / "in" / "cat" / "photo.heic").write_bytes(b"no matter")
    prepared(tmp_path)
    assert "skipped 1: 1 HEIC (install the extra: pip install 'textdiffusion[heic]') (cat/photo.heic)" in (
        capsys.readouterr().err
    )


def test_with_its_extra_heic_is_a_format_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = ModuleType("pillow_heif")
    extra.register_heif_opener = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", extra)
    assert "HEIF" in decode.formats()
    assert ".heic" in decode.suffixes()


@pytest.mark.parametrize(
    ("background", "expected"), [("white", (255, 255, 255)), ("black", (0, 0, 0)), ("#102030", (16, 32, 48))]
)
def test_transparent_pixels_show_the_background(
    tmp_path: Path, background: str, expected: tuple[int, int, int]
) -> None:
    for index in range(20):
        picture(tmp_path / "in" / "cat" / f"{index}.png", "RGB")
    clear = Image.new("RGBA", (8, 8), (200, 100, 50, 0))
    clear.putpixel((0, 0), (200, 100, 50, 255))
    clear.save(tmp_path / "in" / "cat" / "clear.png")
    data = prepared(tmp_path, background=background)
    (found,) = [image for image in stored(data) if (image[1:] == expected).all()]
    assert tuple(found[0, 0]) == (200, 100, 50)
    assert data.metadata["summary"]["transparent"] == 1


def test_a_refusal_counts_all_transparent_files(tmp_path: Path) -> None:
    for index in range(30):
        picture(tmp_path / "in" / "cat" / f"{index}.png", "RGBA" if index < 7 else "RGB")
    line = refused(tmp_path)
    assert "7 images have transparent pixels" in line
    assert "cat/0.png, " in line
    assert "; set data.background to white, black or '#rrggbb'" in line


def test_grey_transparency_on_a_grey_background_stays_grey(tmp_path: Path) -> None:
    for index in range(20):
        picture(tmp_path / "in" / "cat" / f"{index}.png", "LA")
    assert prepared(tmp_path, background="black").channels == 1


def test_rotated_cropped_grey_and_equal_images_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for index in range(20):
        picture(tmp_path / "in" / "cat" / f"{index}.png", "RGB", (12, 8) if index < 3 else (8, 8))
    picture(tmp_path / "in" / "cat" / "turned.jpg", "RGB", (10, 6), exif=exif)
    picture(tmp_path / "in" / "cat" / "x-grey.png", "L")
    for name in ("again.png", "more.png"):
        (tmp_path / "in" / "cat" / name).write_bytes((tmp_path / "in" / "cat" / "5.png").read_bytes())
    found = prepared(tmp_path, resolution=8).metadata["summary"]
    assert {key: found[key] for key in ("read", "rotated", "cropped", "grey", "duplicates")} == {
        "read": 24,
        "rotated": 1,
        "cropped": 4,
        "grey": 1,
        "duplicates": 2,
    }
    assert "of them 1 turned upright as EXIF says, 4 cropped to their centre square, 1 grey" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["huge.png", "huge.jpg"])
def test_photos_above_4096_pixels_are_shrunk_where_a_resolution_is_set(tmp_path: Path, name: str) -> None:
    pictures(tmp_path / "in" / "cat")
    halves = Image.new("L", (4200, 32), 10)
    halves.paste(240, (2100, 0, 4200, 32))
    halves.save(tmp_path / "in" / "cat" / name)
    line = refused(tmp_path)
    assert "found images of 4200 x 32 pixels; allowed are 1 to 4096 on each side; set data.resolution" in line
    data = prepared(tmp_path, resolution=16)
    assert data.metadata["summary"]["reduced"] == 1
    shrunk = [image for image in stored(data) if np.abs(image[:, :6].astype(int) - 10).max() < 8]
    assert len(shrunk) == 1
    assert np.abs(shrunk[0][:, -6:].astype(int) - 240).max() < 8, "the middle of the photo, dark to the left"


def test_long_images_have_a_contact_sheet(tmp_path: Path) -> None:
    for index in range(20):
        picture(tmp_path / "in" / "cat" / f"{index}.png", "L", (1000, 8))
        picture(tmp_path / "in" / "dog" / f"{index}.png", "L", (1000, 8))
    data = prepared(tmp_path)
    assert data.shape == (8, 1000)
    with Image.open(data.path / "contact_sheet.png") as sheet:
        assert min(sheet.size) > 0
