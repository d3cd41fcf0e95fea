"""Where images come from: each reader opens a source, checks what its headers say, and streams batches in order.

`open_source` returns labels at once and images as an iterator, so that a million images need no more memory than
one batch. Everything wrong with the input is a `UserError` that names the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from core import storage
from core.errors import UserError
from core.images.config import EMBEDDED, ImageData
from core.images.sources import decode
from core.images.sources.digits import open_digits
from core.images.sources.folder import open_folder
from core.images.sources.huggingface import open_huggingface
from core.images.sources.idx import open_idx
from core.images.sources.intake import Intake
from core.images.sources.mnist_small import open_mnist_small
from core.images.sources.npz import open_npz
from core.images.sources.source import Batch, Labels, Pool, Source
from core.sources.archives import unpacked
from core.sources.huggingface import holds_data_set
from core.sources.listing import listing
from core.storage.cache import downloads

__all__ = ["Batch", "Labels", "Pool", "Source", "kind_of", "open_source"]


@contextmanager
def open_source(config: ImageData) -> Iterator[Source]:
    """The source that `config` names; an archive is unpacked while it is open.

    Raises:
        UserError: it is missing, damaged, or holds what cannot be used.
    """
    intake = Intake(config)
    if problem := config.place_problem:
        raise UserError(problem)
    if config.source in EMBEDDED:
        yield _OPEN[config.source](intake)
    elif config.source == "mnist" and config.data_dir is None:
        yield open_idx(_download_mnist(), intake, need_test=True)
    elif config.data_dir is not None:
        with unpacked(config.data_dir, intake.tally) as place:
            if config.source == "huggingface":
                with open_huggingface(place, intake) as source:
                    yield source
            else:
                yield _open(place, config, intake)
    else:
        with open_huggingface(None, intake) as source:
            yield source


def kind_of(place: str) -> Literal["folder", "npz", "idx", "huggingface"]:
    """Which source a folder or file of images is."""
    if place.endswith(".npz"):
        return "npz"
    if place.endswith(".parquet"):
        return "huggingface"
    if not storage.is_remote(place) and Path(place).is_dir():
        names = [name.name for name in Path(place).iterdir()]
        if any(name.endswith(".npz") for name in names):
            return "npz"
        if any("ubyte" in name for name in names):
            return "idx"
        if holds_data_set(place) and not any(name.lower().endswith(decode.suffixes()) for name in listing(place).files):
            return "huggingface"
    return "folder"


def _open(place: str, config: ImageData, intake: Intake) -> Source:
    match config.source:
        case "folder":
            return open_folder(place, intake)
        case "npz":
            return open_npz(place, intake)
    return open_idx(place, intake, need_test=config.source == "mnist")


_OPEN: Mapping[str, Callable[[Intake], Source]] = {
    "digits": open_digits,
    "mnist-small": open_mnist_small,
}  # of EMBEDDED


def _download_mnist() -> str:
    """The folder of MNIST's IDX files, fetched once (11 MB, MD5 checked by torchvision) into the cache folder."""
    cache = downloads()
    from torchvision.datasets import MNIST

    try:
        MNIST(str(cache), train=True, download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"data.data_dir: not set, and MNIST cannot be downloaded to {cache}: {error}; "
            "set data.data_dir to a folder or gs:// prefix that holds its four IDX files"
        ) from None
    return str(cache)
