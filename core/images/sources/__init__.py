"""Where images come from: each reader opens a source, checks what its headers say, and streams batches in order.

`open_source` returns labels at once and images as an iterator, so that a million images need no more memory than
one batch. Everything wrong with the input is a `UserError` that names the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from core.errors import UserError
from core.images.config import EMBEDDED, ImageData
from core.images.sources.folder import open_folder
from core.images.sources.huggingface import open_huggingface
from core.images.sources.idx import open_idx
from core.images.sources.intake import Intake
from core.images.sources.mnist_small import open_mnist_small
from core.images.sources.npz import open_npz
from core.images.sources.source import Batch, Labels, Pool, Source
from core.sources.archives import unpacked

__all__ = ["Batch", "Labels", "Pool", "Source", "open_source"]


@contextmanager
def open_source(config: ImageData) -> Iterator[Source]:
    """The source that `config` names; an archive is unpacked while it is open.

    Raises:
        UserError: it is missing, damaged, or holds what cannot be used.
    """
    intake = Intake(config)
    if config.source in EMBEDDED:
        if config.data_dir is not None:
            raise UserError(
                f"data.data_dir: found {config.data_dir!r}, but the source `{config.source}` is embedded and reads no"
                " folder; set data.source to mnist, idx, folder, npz or huggingface"
            )
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
    elif config.source == "huggingface" and config.dataset is not None:
        with open_huggingface(None, intake) as source:
            yield source
    else:
        name = " or data.dataset names one of huggingface.co" if config.source == "huggingface" else ""
        raise UserError(f"data.data_dir: not set; the source `{config.source}` needs a path or a gs:// prefix{name}")


def _open(place: str, config: ImageData, intake: Intake) -> Source:
    match config.source:
        case "folder":
            return open_folder(place, intake)
        case "npz":
            return open_npz(place, intake)
    return open_idx(place, intake, need_test=config.source == "mnist")


def _digits(intake: Intake) -> Source:
    """scikit-learn's copy of the UCI optical digits: 1,797 scans of 8x8 pixels with values 0..16."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    images = np.rint(scans.images * (255 / 16)).astype(np.uint8)
    pool = Pool("digits", scans.target.astype(np.int64), lambda: iter([images]))
    return Source(train=pool, class_names=tuple(str(digit) for digit in range(10)), intake=intake)


_OPEN: Mapping[str, Callable[[Intake], Source]] = {"digits": _digits, "mnist-small": open_mnist_small}  # of EMBEDDED


def _download_mnist() -> str:
    """The folder of MNIST's IDX files, fetched once (11 MB, MD5 checked by torchvision) into the cache folder."""
    cache = Path(os.environ.get("TEXTDIFFUSION_CACHE") or Path.home() / ".cache" / "textdiffusion")
    from torchvision.datasets import MNIST

    try:
        MNIST(str(cache), train=True, download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"data.data_dir: not set, and MNIST cannot be downloaded to {cache}: {error}; "
            "set data.data_dir to a folder or gs:// prefix that holds its four IDX files"
        ) from None
    return str(cache)
