"""Data sets: what goes in comes out, split for good; what is damaged is refused in one line and leaves nothing."""

import gzip
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from core import storage
from core.errors import UserError
from core.images.config import ImageData
from core.images.data import prepare_data
from core.images.dataset import SPLITS, ImageDataset
from core.images.seen import values_of
from core.images.split import hold_out
from tests.fakes.gcs import GcsServer

RANDOM = np.random.default_rng(7)


def write_idx(path: Path, array: np.ndarray, *, magic: bytes | None = None) -> None:
    magic = magic or bytes([0, 0, 8, array.ndim])
    data = magic + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def numbered_images(count: int, side: int = 6) -> np.ndarray:
    """Images that all differ: the index is written into the first four pixels."""
    images = RANDOM.integers(0, 256, (count, side, side), dtype=np.uint8)
    images[:, 0, :4] = np.arange(count, dtype=">u4").view(np.uint8).reshape(count, 4)
    return images


def idx_folder(folder: Path, train: int = 100, test: int = 30, suffix: str = "") -> tuple[np.ndarray, np.ndarray]:
    images, labels = numbered_images(train + test), np.arange(train + test) % 5
    for part, rows in (("train", slice(0, train)), ("t10k", slice(train, None))):
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images[rows])
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels[rows])
    return images, labels


def class_folders(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 20, mode: str = "L") -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(each):
            pixels = RANDOM.integers(0, 256, (8, 8, 3) if mode == "RGB" else (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def prepared(out: Path, **config: object) -> ImageDataset:
    prepare_data(ImageData.model_validate(config), out)
    return ImageDataset.open(out)


def refused(tmp_path: Path, **config: object) -> str:
    """The one line that preparing these data ends with; nothing may be left beside it."""
    out = tmp_path / "refused" / "dataset"
    with pytest.raises(UserError) as caught:
        prepare_data(ImageData.model_validate(config), out)
    assert not out.exists()
    assert not out.parent.exists() or not list(out.parent.iterdir()), "something half-written is left"
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what goes in comes out


def test_digits_are_scikit_learns_scans_with_full_contrast(tmp_path: Path) -> None:
    data = prepared(tmp_path / "d")
    stored = np.concatenate([data.images(split) for split in SPLITS])
    assert sorted(stored.reshape(1797, -1).sum(1)) == sorted(
        np.rint(load_digits().data * 255 / 16).astype(int).sum(1).tolist()
    )
    assert (data.shape, data.classes, data.metadata["value_range"]) == ((8, 8), 10, [0, 255])
    assert sum(data.metadata["counts"].values()) == 1797


def test_mean_and_deviation_are_those_of_the_training_pixels(tmp_path: Path) -> None:
    data = prepared(tmp_path / "d")
    pixels = data.images("train") / 127.5 - 1
    assert data.metadata["mean"] == pytest.approx(pixels.mean(), abs=1e-6)
    assert data.metadata["std"] == pytest.approx(pixels.std(), abs=1e-6)


@pytest.mark.parametrize(("layout", "suffix"), [("", ""), ("", ".gz"), ("MNIST/raw", ""), ("raw", ".gz")])
def test_every_idx_image_lands_in_one_split_with_its_label(tmp_path: Path, layout: str, suffix: str) -> None:
    images, labels = idx_folder(tmp_path / "in" / layout, suffix=suffix)
    data = prepared(tmp_path / "out", source="mnist", data_dir=str(tmp_path / "in"))
    number = {image.tobytes(): index for index, image in enumerate(images)}
    seen = []
    for split in SPLITS:
        for image, label in zip(data.images(split), data.labels(split), strict=True):
            index = number[image.tobytes()]
            assert label == labels[index]
            seen.append((index, split))
    assert sorted(index for index, _ in seen) == list(range(130))
    assert sorted(index for index, split in seen if split == "test") == list(range(100, 130)), "the official test split"
    assert data.metadata["counts"] == {"train": 90, "validation": 10, "test": 30}


def test_labels_that_start_at_one_keep_their_names(tmp_path: Path) -> None:
    write_idx(tmp_path / "in/emnist-letters-train-images-idx3-ubyte", numbered_images(60))
    write_idx(tmp_path / "in/emnist-letters-train-labels-idx1-ubyte", np.arange(60) % 3 + 1)
    data = prepared(tmp_path / "out", source="idx", data_dir=str(tmp_path / "in"))
    assert data.class_names == ["1", "2", "3"]
    assert set(data.labels("train")) == {0, 1, 2}


def test_idx_files_are_read_from_cloud_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idx_folder(tmp_path / "in", suffix=".gz")
    local = prepared(tmp_path / "local", source="mnist", data_dir=str(tmp_path / "in"))
    with GcsServer() as server:
        server.create_bucket("images")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        storage.copy_tree(tmp_path / "in", "gs://images/mnist")
        remote = prepared(tmp_path / "remote", source="mnist", data_dir="gs://images/mnist")
    assert remote.content_sha256 == local.content_sha256


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_folders_are_classes_in_natural_order(tmp_path: Path, mode: str) -> None:
    class_folders(tmp_path / "in", ("class10", "class2"), mode=mode)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    data = prepared(tmp_path / "out", source="folder", data_dir=str(tmp_path / "in"))
    assert data.class_names == ["class2", "class10"]
    assert data.channels == (1 if mode == "L" else 3)
    assert data.metadata["summary"]["skipped"] == {"no images": {"count": 1, "examples": ["notes.txt"]}}
    with Image.open(tmp_path / "in" / "class10" / "3.png") as image:
        pixels = np.asarray(image)
    found = [
        (image == pixels).all() and label == 1
        for split in SPLITS
        for image, label in zip(data.images(split), data.labels(split), strict=True)
    ]
    assert sum(found) == 1


def test_train_and_test_folders_stay_apart(tmp_path: Path) -> None:
    class_folders(tmp_path / "in" / "train", each=30)
    class_folders(tmp_path / "in" / "test", each=7)
    data = prepared(tmp_path / "out", source="folder", data_dir=str(tmp_path / "in"))
    assert data.metadata["counts"] == {"train": 54, "validation": 6, "test": 14}


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
def test_npz_pixels_of_any_number_type_are_the_same_images(tmp_path: Path, dtype: type) -> None:
    images = numbered_images(40)
    stored = images.astype(dtype) if np.issubdtype(dtype, np.integer) else (images / 255).astype(dtype)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(40) % 2)
    np.savez_compressed(tmp_path / "b.npz", x_train=stored[..., None], y_train=(np.arange(40) % 2)[:, None])
    plain = prepared(tmp_path / "a", source="npz", data_dir=str(tmp_path / "a.npz"))
    other = prepared(tmp_path / "b", source="npz", data_dir=str(tmp_path / "b.npz"))
    assert plain.content_sha256 == other.content_sha256


def test_resolution_and_channels_are_what_the_configuration_asks(tmp_path: Path) -> None:
    images = np.zeros((40, 10, 14), np.uint8)
    images[:, :, 2:12] = 200  # the centre square is of one colour, so no filter can change it
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(40) % 2)
    data = prepared(
        tmp_path / "o", source="npz", data_dir=str(tmp_path / "a.npz"), resolution=20, channels=3, overlap=1
    )
    assert data.shape == (20, 20, 3)
    assert (np.asarray(data.images("train")) == 200).all()


def test_mixed_sizes_are_cropped_when_a_resolution_is_set(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "in")
    Image.new("L", (31, 17), 90).save(folder / "cat" / "wide.png")
    assert prepared(tmp_path / "o", source="folder", data_dir=str(folder), resolution=16).shape == (16, 16)


# --- the split


@pytest.mark.parametrize(("sizes", "fraction"), [((100, 100), 0.1), ((7, 13, 480), 0.25), ((3, 3, 3), 0.4)])
def test_every_class_has_its_share_of_what_is_held_out(sizes: tuple[int, ...], fraction: float) -> None:
    labels = RANDOM.permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int64)
    mask = hold_out(labels, fraction, seed=3)
    assert mask.sum() == int(len(labels) * fraction + 1e-9)
    for label, size in enumerate(sizes):
        assert abs(mask[labels == label].sum() - size * fraction) <= 1


def test_the_split_depends_on_its_seed_alone(tmp_path: Path) -> None:
    first, again, other = (prepared(tmp_path / str(i), split_seed=s) for i, s in enumerate((0, 0, 1)))
    assert first.metadata == again.metadata
    assert first.metadata["split_sha256"] != other.metadata["split_sha256"]
    assert first.content_sha256 != other.content_sha256


def test_a_limit_takes_training_images_only(tmp_path: Path) -> None:
    whole, part = prepared(tmp_path / "a"), prepared(tmp_path / "b", limit=100)
    assert part.metadata["counts"] == {**whole.metadata["counts"], "train": 100}
    assert (part.images("test") == whole.images("test")).all()
    assert abs(np.bincount(part.labels("train")) - 10).max() <= 1


# --- what is damaged is refused


def break_magic(folder: Path) -> None:
    write_idx(folder / "train-images-idx3-ubyte", numbered_images(100), magic=b"\0\0\x0d\3")


def truncate(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])


def truncate_gzip(folder: Path) -> None:
    path = folder / "t10k-images-idx3-ubyte"
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes())[:-300])
    path.unlink()


def extend(folder: Path) -> None:
    with (folder / "t10k-images-idx3-ubyte").open("ab") as stream:
        stream.write(b"x")


def drop_labels(folder: Path) -> None:
    write_idx(folder / "train-labels-idx1-ubyte", np.arange(99) % 5)


def skip_class(folder: Path) -> None:
    labels = np.arange(100) % 5
    write_idx(folder / "train-labels-idx1-ubyte", np.where(labels == 3, 4, labels))


def foreign_label(folder: Path) -> None:
    write_idx(folder / "t10k-labels-idx1-ubyte", np.full(30, 9))


def remove_test(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").unlink()


def claim_too_much(folder: Path) -> None:
    data = b"\0\0\x08\3" + struct.pack(">III", 10**9, 3000, 3000)
    (folder / "train-images-idx3-ubyte").write_bytes(data + b"x" * 100)


def gzip_bomb(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte").unlink()
    header = b"\0\0\x08\3" + struct.pack(">III", 100, 4000, 4000)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + bytes(1 << 20)))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_magic, "train-images-idx3-ubyte: wrong magic number: found 0x00000d03, allowed is 0x00000803"),
        (truncate, "train-images-idx3-ubyte: truncated: found 3611 bytes, its header says 3616"),
        (truncate_gzip, "t10k-images-idx3-ubyte.gz: not a whole gzip file"),
        (extend, "t10k-images-idx3-ubyte: too long"),
        (drop_labels, "100 images, but 99 labels"),
        (skip_class, "no image has 3"),
        (foreign_label, "found labels from 9 to 9"),
        (remove_test, "no IDX file of the test labels"),
        (claim_too_much, "truncated"),
        (gzip_bomb, "decompression bomb"),
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    idx_folder(tmp_path / "in")
    damage(tmp_path / "in")
    assert words in refused(tmp_path, source="mnist", data_dir=str(tmp_path / "in"))


def unreadable(folder: Path) -> None:
    (folder / "dog" / "5.png").write_bytes(b"this is no picture")


def cut_png(folder: Path) -> None:
    path = folder / "dog" / "5.png"
    path.write_bytes(path.read_bytes()[:60])


def other_size(folder: Path) -> None:
    Image.new("L", (9, 8)).save(folder / "dog" / "5.png")


def empty_class(folder: Path) -> None:
    (folder / "owl").mkdir()


def colour_among_grey(folder: Path) -> None:
    Image.new("RGB", (8, 8), (250, 0, 0)).save(folder / "dog" / "5.png")


def transparent(folder: Path) -> None:
    Image.new("LA", (8, 8), (250, 100)).save(folder / "dog" / "5.png")


def picture_bomb(folder: Path) -> None:
    header = struct.pack(">IIBBBBB", 6000, 6000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    body = b"IDAT" + zlib.compress(bytes(10_000))
    data += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (folder / "dog" / "5.png").write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (unreadable, "dog/5.png: unreadable image: damaged, or no image"),
        (cut_png, "dog/5.png: unreadable image"),
        (other_size, "dog/5.png: 9 x 8 pixels, while"),
        (empty_class, "owl: empty class"),
        (colour_among_grey, "dog/5.png: is coloured"),
        (transparent, "1 image has transparent pixels ("),
        (picture_bomb, "dog/5.png: found images of 6000 x 6000 pixels"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(class_folders(tmp_path / "in"))
    assert words in refused(tmp_path, source="folder", data_dir=str(tmp_path / "in"))


class Explosive:
    """Unpickling it would end the test."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return sys.exit, (99,)


IMAGES, LABELS = np.full((40, 6, 6), 0.5), np.arange(40) % 2


def with_value(value: float) -> np.ndarray:
    images = IMAGES.copy()
    images[3, 2, 1] = value
    return images


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": with_value(np.nan), "labels": LABELS}, "image 3 has the value NaN; allowed are floats from 0 to 1"),
        ({"images": with_value(np.inf), "labels": LABELS}, "image 3 has the value inf"),
        ({"images": with_value(1.5), "labels": LABELS}, "image 3 has the value 1.5"),
        ({"images": np.full((40, 6, 6), -1), "labels": LABELS}, "image 0 has the value -1; allowed are integers"),
        ({"images": IMAGES, "labels": LABELS[:-1]}, "40 `images`, but 39 `labels`"),
        ({"images": IMAGES, "x_test": IMAGES, "y_test": LABELS}, "holds `images` but not `labels`"),
        ({"images": IMAGES, "labels": LABELS}, "every pixel is 0.5; there is nothing to learn"),
        ({"pictures": IMAGES}, "allowed are `images` and `labels`"),
        ({"images": IMAGES, "labels": LABELS + 0.5}, "labels that are not whole numbers"),
        ({"images": IMAGES, "labels": LABELS * 2}, "no image has 1"),
        ({"images": IMAGES, "labels": LABELS - 1}, "found labels from -1 to 0"),
        ({"images": IMAGES[0], "labels": LABELS}, "found shape (6, 6)"),
        ({"images": IMAGES.astype(complex), "labels": LABELS}, "found dtype complex128"),
        ({"images": np.asfortranarray(IMAGES), "labels": LABELS}, "Fortran order"),
        ({"images": np.array([Explosive()] * 40), "labels": LABELS}, "array of Python objects"),
        ({"images": IMAGES, "labels": np.array([Explosive()] * 40)}, "array of Python objects"),
        ({"images": IMAGES[:4], "labels": LABELS[:4]}, "too few to hold out"),
    ],
)
def test_an_unusable_npz_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "in.npz", **arrays)  # type: ignore[arg-type]
    assert words in refused(tmp_path, source="npz", data_dir=str(tmp_path / "in.npz"))


def test_a_cut_or_corrupt_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    np.savez(path, images=numbered_images(40), labels=LABELS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert "damaged or not an npz file" in refused(tmp_path, source="npz", data_dir=str(path))
    path.write_bytes(whole[:400] + bytes([whole[400] ^ 255]) + whole[401:])  # caught by the zip's CRC
    assert "damaged or not an npz file" in refused(tmp_path, source="npz", data_dir=str(path))


def test_an_npz_whose_names_are_no_text_is_refused(tmp_path: Path) -> None:
    """A name that says it is UTF-8 and is not; found by `make fuzz`."""
    path = tmp_path / "in.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("imagé.npy", b"x")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xfc\xfc"))
    assert "damaged or not an npz file" in refused(tmp_path, source="npz", data_dir=str(path))


@pytest.mark.parametrize(
    "header", ["{'descr': (", "{'descr': '|u1', 'fortran_order': False, 'shape': (2L", "(" * 300, "{}[0"]
)
def test_an_npz_with_a_header_that_is_no_python_is_refused_in_one_line(tmp_path: Path, header: str) -> None:
    """numpy tokenizes what it cannot parse, so that errors of Python's tokenizer come out; found by `make fuzz`."""
    path = tmp_path / "in.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        archive.writestr("labels.npy", b"")
    assert "not a numpy array" in refused(tmp_path, source="npz", data_dir=str(path))


def test_an_npz_that_expands_a_thousandfold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": (300, 1024, 1024)}
        )
        for _ in range(300):
            stream.write(bytes(1 << 20))
    with zipfile.ZipFile(path, "a") as archive, archive.open("labels.npy", "w") as stream:
        np.lib.format.write_array(stream, np.arange(300) % 2)
    assert "decompression bomb" in refused(tmp_path, source="npz", data_dir=str(path))


@pytest.mark.parametrize("source", ["mnist", "idx", "folder", "npz"])
def test_a_missing_folder_is_named(tmp_path: Path, source: str) -> None:
    line = refused(tmp_path, source=source, data_dir=str(tmp_path / "nowhere"))
    assert "nowhere: no such folder" in line


@pytest.mark.parametrize("source", ["idx", "folder", "npz"])
def test_a_source_without_its_folder_names_the_key(tmp_path: Path, source: str) -> None:
    assert refused(tmp_path, source=source).startswith("data.data_dir: not set")


def test_a_failed_preparation_leaves_the_old_data_set(tmp_path: Path) -> None:
    before = prepared(tmp_path / "dataset").content_sha256
    class_folders(tmp_path / "in")
    unreadable(tmp_path / "in")
    with pytest.raises(UserError):
        prepared(tmp_path / "dataset", source="folder", data_dir=str(tmp_path / "in"))
    assert ImageDataset.open(tmp_path / "dataset").content_sha256 == before


# --- reading, and size


@pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy"])
def test_a_changed_file_is_noticed_when_the_data_set_is_opened(tmp_path: Path, name: str) -> None:
    prepared(tmp_path / "d")
    path = tmp_path / "d" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{name}: its SHA-256"):
        ImageDataset.open(tmp_path / "d")
    path.write_bytes(data[:-1])
    with pytest.raises(UserError, match=f"{name}: found"):
        ImageDataset.open(tmp_path / "d", verify=False)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """300 MB of images pass through a process that may grow by a quarter of that."""
    count, side = 380_000, 28
    with (tmp_path / "train-images-idx3-ubyte").open("wb") as stream:
        stream.write(b"\0\0\x08\3" + struct.pack(">III", count, side, side))
        for _ in range(count // 1000):
            stream.write(RANDOM.integers(0, 256, 1000 * side * side, dtype=np.uint8).tobytes())
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(count) % 10)
    script = f"""
import resource, sys
from pathlib import Path
from core.images.config import ImageData
from core.images.data import prepare_data
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
prepare_data(ImageData(), Path({str(tmp_path / "warm")!r}))
before = peak()
prepare_data(ImageData(source="idx", data_dir={str(tmp_path)!r}), Path({str(tmp_path / "out")!r}))
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert float(done.stdout) < 75
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["counts"]["train"] == 273_600


@pytest.fixture(autouse=True)
def _no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.images.sources._download_mnist", lambda: pytest.fail("a test must not download"))


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 5, 5), (4, 2, 3, 3)])
def test_values_of_pixels_are_counted_one_by_one(shape: tuple[int, ...]) -> None:
    batch = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(values_of(batch), np.bincount(batch.ravel(), minlength=256))
