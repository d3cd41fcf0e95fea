"""The IDX format of MNIST and its relatives, raw or gzipped, local or remote (http://yann.lecun.com/exdb/mnist/).

Header, big-endian: two zero bytes, the element type (8: unsigned byte), the number of dimensions, then one int32
for each. Pixels follow in C order.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

import numpy as np

from core import storage
from core.errors import UserError
from core.images.sources.intake import Intake
from core.images.sources.source import (
    Batch,
    Labels,
    Pool,
    Source,
    check_side,
    refuse_bomb,
    rows_per_batch,
    unlabelled,
    with_contiguous_classes,
)
from core.names import inside
from core.sources.listing import listing

FOLDERS = ("", "MNIST/raw", "raw")  # the files themselves, or torchvision's layout
NAME = re.compile(r"(?P<prefix>.*?)(?P<part>train|t10k|test)[-_](?P<what>images|labels)[-.]idx[134]-ubyte(?P<gz>\.gz)?")
PART = {"train": "train", "t10k": "test", "test": "test"}
MAX_IMAGES = 1_000_000_000


def open_idx(data_dir: str, intake: Intake, *, need_test: bool) -> Source:
    """The IDX files in `data_dir`, in `data_dir/MNIST/raw` or in `data_dir/raw`: images and labels, train and test.

    Images without any labels are an unconditional data set, unless `need_test`: that is MNIST, which has them.
    """
    files = _find(data_dir)
    if not need_test and ("train", "images") in files and not any(what == "labels" for _, what in files):
        return unlabelled(_source(files, intake))
    wanted = [("train", "images"), ("train", "labels")]
    if need_test or any(part == "test" for part, _ in files):
        wanted += [("test", "images"), ("test", "labels")]
    for part, what in wanted:
        if (part, what) not in files:
            name = f"{'t10k' if part == 'test' else part}-{what}-idx{3 if what == 'images' else 1}-ubyte"
            raise UserError(
                f"{data_dir}: no IDX file of the {part} {what} there, in MNIST/raw or in raw; "
                f"expected {name} or {name}.gz"
            )
    return with_contiguous_classes(_source(files, intake), files["train", "labels"])


def _source(files: dict[tuple[str, str], str], intake: Intake) -> Source:
    def pool(part: str) -> Pool:
        return _pool(files[part, "images"], files.get((part, "labels")), intake)

    test = pool("test") if ("test", "images") in files else None
    return Source(train=pool("train"), test=test, class_names=(), intake=intake)


def _find(data_dir: str) -> dict[tuple[str, str], str]:
    if not storage.exists(data_dir):
        raise UserError(f"{data_dir}: no such folder; data.data_dir must hold IDX files")
    for folder in FOLDERS:
        where = inside(data_dir, folder, links=True) if folder else data_dir.rstrip("/")
        files: dict[tuple[str, str], str] = {}
        prefixes = set()
        for name in _names(where):
            match = NAME.fullmatch(name)
            if match:
                key = PART[match["part"]], match["what"]
                if key in files and not (match["gz"] or files[key].endswith(".gz")):
                    raise UserError(f"{where}: several {key[0]} {key[1]}: {files[key]} and {name}; allowed is one")
                if key not in files or not match["gz"]:  # unpacked before packed
                    files[key] = inside(where, name, links=True)
                prefixes.add(match["prefix"])
        if len(prefixes) > 1:
            raise UserError(f"{where}: IDX files of several data sets, {sorted(prefixes)}; allowed is one in a folder")
        if files:
            return files
    return {}


def _names(where: str) -> list[str]:
    return [name for name in listing(where).files if "/" not in name] if storage.exists(where) else []


def _pool(images: str, labels: str | None, intake: Intake) -> Pool:
    shape = _image_shape(images)
    values = _read_labels(labels) if labels else np.zeros(shape[0], np.int64)
    if shape[0] != len(values):
        raise UserError(f"{images}: {shape[0]} images, but {len(values)} labels in {labels}; the counts must be equal")
    return Pool(images, values, lambda: _batches(images, intake))


def _image_shape(uri: str) -> tuple[int, ...]:
    with _open(uri) as stream:
        shape = _read_header(uri, stream, (3, 4))
    if not 1 <= shape[0] <= MAX_IMAGES:
        raise UserError(f"{uri}: header says {shape[0]} images; allowed are 1 to {MAX_IMAGES}")
    check_side(uri, shape[1], shape[2])
    if len(shape) == 4 and shape[3] != 3:
        raise UserError(f"{uri}: header says {shape[3]} channels; allowed are 3, or images without that dimension")
    expanded = int(np.prod(shape)) + 4 + 4 * len(shape)
    size = storage.size(uri)
    if uri.endswith(".gz"):
        refuse_bomb(uri, size, expanded)
    elif size != expanded:
        raise UserError(f"{uri}: {_wrong_size(size, expanded)}")
    return shape


def _wrong_size(size: int, expected: int) -> str:
    state = "truncated" if size < expected else "too long"
    return f"{state}: found {size} bytes, its header says {expected}"


def _read_labels(uri: str) -> Labels:
    with _open(uri) as stream:
        (count,) = _read_header(uri, stream, (1,))
        if count > MAX_IMAGES:
            raise UserError(f"{uri}: header says {count} labels; allowed are up to {MAX_IMAGES}")
        data = stream.read(count + 1)
    if len(data) != count:
        raise UserError(f"{uri}: {_wrong_size(len(data) + 8, count + 8)}")
    return np.frombuffer(data, np.uint8).astype(np.int64)


def _batches(uri: str, intake: Intake) -> Iterator[Batch]:
    with _open(uri) as stream:
        shape = _read_header(uri, stream, (3, 4))
        image_bytes, left = int(np.prod(shape[1:])), shape[0]
        while left:
            rows = min(left, rows_per_batch(shape[1:]))
            data = stream.read(rows * image_bytes)
            if len(data) != rows * image_bytes:
                missing = left * image_bytes - len(data)
                raise UserError(f"{uri}: truncated: {missing} bytes short of the {shape[0]} images its header says")
            yield intake.to_uint8(uri, np.frombuffer(data, np.uint8).reshape(rows, *shape[1:]), shape[0] - left)
            left -= rows
        if stream.read(1):
            raise UserError(f"{uri}: too long: more bytes follow the {shape[0]} images its header says")


@contextmanager
def _open(uri: str) -> Iterator[IO[bytes]]:
    with storage.open_read(uri) as raw:
        try:
            yield cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if uri.endswith(".gz") else raw
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{uri}: not a whole gzip file: {error}") from None


def _read_header(uri: str, stream: IO[bytes], allowed: tuple[int, ...]) -> tuple[int, ...]:
    magic = stream.read(4)
    if len(magic) < 4:
        raise UserError(f"{uri}: truncated: found {len(magic)} bytes, an IDX header has at least 8")
    expected = " or ".join(f"0x{0x800 + dims:08x}" for dims in allowed)
    if magic[:3] != b"\0\0\x08" or magic[3] not in allowed:
        raise UserError(f"{uri}: wrong magic number: found 0x{magic.hex()}, allowed is {expected} (unsigned bytes)")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise UserError(f"{uri}: truncated: its header ends after {4 + len(sizes)} bytes")
    return struct.unpack(f">{magic[3]}I", sizes)
