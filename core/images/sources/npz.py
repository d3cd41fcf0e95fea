"""An npz of `images` and `labels`, streamed from the zip without loading it; nothing in it is ever unpickled.

Also read: `train_images`/`x_train` with `test_*` and, if there, `val_*` (the names of MedMNIST and Keras), and
`class_names`. Without labels it is an unconditional data set. Pixels are uint8, other integers 0..255, or floats 0..1,
or what data.value_range says.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from core import storage
from core.errors import UserError
from core.images.sources.intake import Intake
from core.images.sources.source import (
    Batch,
    Labels,
    Pool,
    Source,
    check_images,
    refuse_bomb,
    rows_per_batch,
    to_labels,
    unlabelled,
    with_contiguous_classes,
)
from core.names import inside
from core.sources.listing import listing

TRAIN = (("images", "labels"), ("train_images", "train_labels"), ("x_train", "y_train"))
VALIDATION = (("validation_images", "validation_labels"), ("val_images", "val_labels"), ("x_val", "y_val"))
TEST = (("test_images", "test_labels"), ("x_test", "y_test"))
_DAMAGED = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError)
Header = tuple[tuple[int, ...], np.dtype[Any]]


def open_npz(data_dir: str, intake: Intake) -> Source:
    """The npz file at `data_dir`, or the only one in the folder `data_dir`."""
    uri = _file(data_dir, intake)
    with _archive(uri) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
    labelled = any(labels in names for _, labels in (*TRAIN, *VALIDATION, *TEST))
    train = _pool(uri, names, TRAIN, labelled, intake)
    if train is None:
        raise UserError(
            f"{uri}: found {sorted(names)[:8]}; allowed are `images` and `labels` (see core/images/sources/npz.py)"
        )
    source = Source(
        train=train,
        validation=_pool(uri, names, VALIDATION, labelled, intake),
        test=_pool(uri, names, TEST, labelled, intake),
        class_names=_class_names(uri) if "class_names" in names else (),
        intake=intake,
    )
    return unlabelled(source) if not labelled else with_contiguous_classes(source, uri)


def _file(data_dir: str, intake: Intake) -> str:
    if data_dir.endswith(".npz"):
        if not storage.exists(data_dir):
            raise UserError(f"{data_dir}: no such file; data.data_dir must name an npz of images and labels")
        return data_dir
    if not storage.exists(data_dir):
        raise UserError(f"{data_dir}: no such folder; data.data_dir must name an npz or a folder that holds one")
    listed = listing(data_dir)
    intake.tally.skip_all(listed.skipped)
    names = [name for name in listed.files if name.endswith(".npz")]
    if len(names) != 1:
        raise UserError(f"{data_dir}: found {len(names)} npz files; allowed is one, or set data.data_dir to the file")
    return inside(data_dir, names[0], links=True)


@contextmanager
def _archive(uri: str) -> Iterator[zipfile.ZipFile]:
    with storage.open_read(uri) as stream:
        try:
            opened = zipfile.ZipFile(stream)
        except (ValueError, *_DAMAGED) as error:  # a bucket's stream has no place before its beginning
            raise UserError(f"{uri}: damaged or not an npz file: {error}") from None
        try:
            with opened as archive:
                yield archive
        except _DAMAGED as error:
            raise UserError(f"{uri}: damaged or not an npz file: {error}") from None


def _pool(uri: str, names: set[str], pairs: tuple[tuple[str, str], ...], labelled: bool, intake: Intake) -> Pool | None:
    for images, labels in pairs:
        if images in names and labelled and labels not in names:
            raise UserError(f"{uri}: holds `{images}` but not `{labels}`")
        if images in names:
            with _archive(uri) as archive:
                shape, _ = _image_header(uri, archive, images)
            values = _labels(uri, labels) if labelled else np.zeros(shape[0], np.int64)
            if shape[0] != len(values):
                raise UserError(f"{uri}: {shape[0]} `{images}`, but {len(values)} `{labels}`; the counts must be equal")
            return Pool(f"{uri}[{images}]", values, lambda: _batches(uri, images, intake))  # noqa: B023  returned at once
    return None


@contextmanager
def _member(uri: str, archive: zipfile.ZipFile, name: str) -> Iterator[tuple[IO[bytes], Header]]:
    """The stream of an array's bytes, and its shape and dtype; refused if it is pickled, not C order or a bomb."""
    info = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
    where = f"{uri}[{name}]"
    with archive.open(info) as stream:
        try:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(stream)
        except (UserError, *_DAMAGED):
            raise
        except Exception as error:  # the header is read as Python: tokenizer, parser and dtype raise kinds of their own
            raise UserError(f"{where}: not a numpy array: {' '.join(str(error).split())[:200]}") from None
        if dtype.hasobject:
            raise UserError(f"{where}: is an array of Python objects, which would be unpickled; allowed are numbers")
        if fortran and len(shape) > 1:
            raise UserError(f"{where}: is in Fortran order; save numpy.ascontiguousarray of it")
        expanded = int(np.prod(shape, dtype=object)) * dtype.itemsize
        refuse_bomb(where, info.compress_size, max(expanded, info.file_size))
        if expanded > info.file_size:
            raise UserError(f"{where}: truncated: its header says {expanded} bytes, the file holds {info.file_size}")
        yield stream, (shape, dtype)


def _image_header(uri: str, archive: zipfile.ZipFile, name: str) -> Header:
    with _member(uri, archive, name) as (_, (shape, dtype)):
        check_images(f"{uri}[{name}]", shape, dtype)
        return shape, dtype


def _small_array(uri: str, name: str, kinds: str, allowed: str) -> NDArray[Any]:
    with _archive(uri) as archive, _member(uri, archive, name) as (stream, (shape, dtype)):
        if dtype.kind not in kinds:
            raise UserError(f"{uri}[{name}]: found dtype {dtype}; allowed are {allowed}")
        data = stream.read(int(np.prod(shape)) * dtype.itemsize)
        return np.frombuffer(data, dtype).reshape(shape)


def _labels(uri: str, name: str) -> Labels:
    return to_labels(f"{uri}[{name}]", _small_array(uri, name, "uif", "integers"))


def _class_names(uri: str) -> tuple[str, ...]:
    return tuple(str(name) for name in _small_array(uri, "class_names", "U", "text").ravel())


def _batches(uri: str, name: str, intake: Intake) -> Iterator[Batch]:
    with _archive(uri) as archive:
        _image_header(uri, archive, name)
        with _member(uri, archive, name) as (stream, (shape, dtype)):
            image = int(np.prod(shape[1:]))
            for start in range(0, shape[0], rows_per_batch(shape[1:])):
                rows = min(rows_per_batch(shape[1:]), shape[0] - start)
                data = stream.read(rows * image * dtype.itemsize)
                if len(data) < rows * image * dtype.itemsize:
                    raise UserError(
                        f"{uri}[{name}]: truncated after image {start + len(data) // (image * dtype.itemsize)}"
                    )
                batch = np.frombuffer(data, dtype).reshape(rows, *shape[1:])
                grey = batch.ndim == 4 and shape[3] == 1
                yield intake.to_uint8(f"{uri}[{name}]", batch[..., 0] if grey else batch, start)
