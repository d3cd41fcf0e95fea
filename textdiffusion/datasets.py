"""Data sets from arrays, texts, files and folders: checked, split and hashed, as the step prepare-data does it."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from core import storage
from core.config import validate
from core.errors import UserError
from core.images.config import EMBEDDED, ImageData
from core.images.data import prepare
from core.images.dataset import ImageDataset, Split
from core.images.shards import Images as ImageArray
from core.images.shards import order_of
from core.images.sources import kind_of
from core.images.sources.arrays import open_arrays
from core.images.sources.source import UNLABELLED
from core.modality import run
from core.names import inside
from core.requests import ModalityName, PrepareDataRequest
from core.storage import scratches
from core.text import data as texts
from core.text.config import TextData
from core.text.data import MIN_CHARACTERS, TextSet, prepare_text

D = TypeVar("D", bound="_Dataset")
IMAGES, TEXTS = (*EMBEDDED, "mnist"), ("pydoc", "shakespeare")  # sources that have a name


class _Dataset:
    """A prepared data set in `folder`, and a temporary folder `work` for what is made of it, which ends with it."""

    modality: ModalityName
    work: Path

    def __len__(self) -> int:
        raise NotImplementedError

    def __init__(self, folder: Path | None = None) -> None:
        """A data set that is in `folder`, or will be in the temporary one; read and verified when it is first used."""
        self.work: Path
        self.work, lock = scratches.keep("data")
        self._end = weakref.finalize(self, _remove, self.work, lock)
        self.folder = inside(self.work, "dataset") if folder is None else folder.absolute()

    def save(self, folder: str | Path) -> None:
        """Copies the prepared data set into a new folder, from which `td.images` or `td.text` opens it at once.

        Raises:
            UserError: there is something already.
        """
        if Path(folder).exists():
            raise UserError(f"{folder}: there is something already; choose a new folder")
        with storage.atomic_folder(Path(folder).absolute(), "dataset.json") as new:
            storage.copy_tree(self.folder, new)


def _remove(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


class Images(_Dataset):
    """A prepared data set of images, memory-mapped, in the splits train, validation and test."""

    modality: ModalityName = "images"

    @cached_property
    def dataset(self) -> ImageDataset:
        """As the steps open it."""
        return ImageDataset.open(self.folder)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: (H, W) or (H, W, 3)."""
        return self.dataset.shape

    @property
    def class_names(self) -> list[str]:
        """Names of the K classes; a single name: images without labels."""
        return self.dataset.class_names

    @property
    def labelled(self) -> bool:
        """Whether the images were given with labels."""
        return self.class_names != [UNLABELLED]

    @property
    def std(self) -> float:
        """Standard deviation of the training pixels in units of [-1, 1]: sigma_data of a noise process."""
        return max(float(self.dataset.metadata["std"]), 0.01)  # constant images have none

    def images(self, split: Split = "train") -> ImageArray:
        """uint8 [N, H, W] or [N, H, W, 3], memory-mapped and read-only, or in shards that are read where indexed."""
        return self.dataset.images(split)

    def labels(self, split: Split = "train") -> NDArray[np.int64]:
        """int64 [N], values 0..K-1."""
        return self.dataset.labels(split)

    def batches(
        self, size: int, *, examples: int, seed: int = 0
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Training images [size, H, W(, 3)] and labels [size], shuffled every epoch, `examples` in all."""
        images, labels = self.images(), self.labels()
        order = order_of(images, seed)
        for start in range(0, examples, size):
            chosen = order(start, start + size).numpy()
            yield images[chosen], labels[chosen]

    def __len__(self) -> int:
        """Training images."""
        return self.dataset.count("train")

    def __repr__(self) -> str:
        counts = self.dataset.metadata["counts"]
        return f"Images({counts}, shape={self.shape}, class_names={self.class_names[:10]})"


class Texts(_Dataset):
    """A prepared text with its tokenizer, in the splits train, validation and test."""

    modality: ModalityName = "text"

    @cached_property
    def dataset(self) -> TextSet:
        """As the steps open it: texts, token ids [N] (integers, mapped into memory) and tokenizer."""
        return texts.load(self.folder)

    def __len__(self) -> int:
        """Training tokens."""
        return len(self.dataset.tokens["train"])

    def __repr__(self) -> str:
        counts, tokens = self.dataset.metadata["counts"], self.dataset.tokenizer.size
        return f"Texts(characters={counts}, vocabulary={tokens})"


def images(
    source: Any,
    labels: Any = None,
    class_names: Sequence[str] = (),
    *,
    resolution: int | None = None,
    channels: Literal["auto", 1, 3] = "auto",
    **settings: Any,
) -> Images:
    """A data set of images. Test and validation splits are held out, class by class, where the source has none.

    Args:
        source: array or tensor [N, H, W], [N, H, W, 1 or 3] or [N, C, H, W] of uint8, integers 0..255 or floats 0..1;
            or a folder with a folder of images for each class, an npz, IDX files, a folder that `save`
            wrote; or "digits" and "mnist-small" (embedded), "mnist" (downloaded).
        labels: of arrays: integers [N] from 0 or 1; left out: images without classes.
        class_names: of arrays: one for each class.
        resolution: side in pixels to crop and scale to; left out: as they are.
        channels: 1: grey, 3: colour; auto: as they are.
        settings: more keys of the section `data` of an image job: limit, test_fraction, validation_fraction.

    Raises:
        UserError: the images cannot be read or used together.
    """
    section = {**settings, "resolution": resolution, "channels": channels}
    if isinstance(source, str | os.PathLike):
        if labels is not None or class_names:
            raise UserError("labels, class_names: of a folder or file they are read from it; leave them out")
        place = os.fspath(source)
        if isinstance(source, str) and source in IMAGES:
            section |= {"source": source}
        elif os.path.isfile(os.path.join(place, "dataset.json")):
            return _verified(Images(Path(place)))
        else:
            section |= {"source": kind_of(place), "data_dir": place}
        dataset = Images()
        run(PrepareDataRequest(modality="images", data=section, out=dataset.folder))
        return dataset
    config, dataset = validate(ImageData, section, "data"), Images()
    prepare(open_arrays(config, source, labels, class_names), config, dataset.folder, "arrays")
    return dataset


def text(
    source: str | os.PathLike[str],
    *,
    tokenizer: Literal["bpe", "characters"] = "bpe",
    vocabulary: int = 512,
    **settings: Any,
) -> Texts:
    """A data set of text. Its last tenth is held out, in two contiguous blocks.

    Args:
        source: the text itself, of 1,000 characters at least; or a UTF-8 file, a folder of .txt files, a folder that
            `save` wrote; or "pydoc" (embedded), "shakespeare" (downloaded).
        tokenizer: bpe: byte pairs, for any text; characters: for small alphabets.
        vocabulary: tokens of byte pairs, 257 or more.
        settings: more keys of the section `data` of a text job: test_fraction, validation_fraction, limit.

    Raises:
        UserError: the text cannot be read, or is too short.
    """
    section = {**settings, "tokenizer": {"kind": tokenizer, "vocabulary": vocabulary}}
    dataset = Texts()
    if isinstance(source, str) and len(source) >= MIN_CHARACTERS:  # no path is as long, and no text shorter
        prepare_text([source], "text", validate(TextData, section, "data"), dataset.folder)
        return dataset
    if not isinstance(source, str | os.PathLike):
        raise UserError(f"text: found {type(source).__name__}; give the text itself, or where it is")
    place = os.fspath(source)
    if isinstance(source, str) and source in TEXTS:
        section |= {"source": source}
    elif os.path.isfile(os.path.join(place, "dataset.json")):
        return _verified(Texts(Path(place)))
    elif not storage.is_remote(place) and not os.path.exists(place):  # pathlib raises for long names
        raise UserError(
            f"{place[:80]}: no such file or folder, and too short as a text: at least {MIN_CHARACTERS} characters are"
            " needed"
        )
    else:
        section |= {"source": "file", "data_dir": place}
    run(PrepareDataRequest(modality="text", data=section, out=dataset.folder))
    return dataset


def _verified(dataset: D) -> D:
    """The same, after `len` has read it."""
    if not len(dataset):
        raise UserError(f"{dataset.folder}: an empty data set")
    return dataset
