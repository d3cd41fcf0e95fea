"""A folder of class folders of PNG or JPEG files; or `train/` and `test/` (and `validation/`) folders of those."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from core import storage
from core.errors import UserError
from core.images.config import ImageData
from core.images.sources.source import (
    Batch,
    Pool,
    Source,
    check_side,
    natural_order,
    rows_per_batch,
    with_contiguous_classes,
)
from core.names import inside

SUFFIXES = (".png", ".jpg", ".jpeg")
PARTS = ("train", "validation", "test")
Tree = dict[str, list[str]]  # class name -> names of its images, in natural order


def open_folder(data_dir: str, config: ImageData) -> Source:
    """The images below `data_dir`; a class is a folder, numbered in natural order of the names."""
    if not storage.exists(data_dir):
        raise UserError(f"{data_dir}: no such folder; data.data_dir must hold one folder of images for each class")
    root = data_dir.rstrip("/")
    names = _listing(root)
    tops = {name.split("/")[0] for name in names}
    split = {"train", "test"} <= tops <= set(PARTS)
    trees, ignored = {}, 0
    for part in PARTS if split else ("train",):
        prefix = f"{part}/" if split else ""
        below = [name[len(prefix) :] for name in names if name.startswith(prefix)]
        if below:
            trees[part], skipped = _tree(inside(root, part, links=True) if split else root, below)
            ignored += skipped
    classes = list(trees["train"])
    pools = {}
    for part, tree in trees.items():
        where = inside(root, part, links=True) if split else root
        if list(tree) != classes:
            odd = sorted(set(tree) ^ set(classes))[0]
            raise UserError(f"{where}: class folders differ from those of train: {odd!r} is only in one of them")
        paths = [inside(where, f"{name}/{file}", links=True) for name, files in tree.items() for file in files]
        labels = np.repeat(np.arange(len(classes)), [len(files) for files in tree.values()]).astype(np.int64)
        pools[part] = _pool(where, paths, labels, config)
    source = Source(
        train=pools["train"],
        validation=pools.get("validation"),
        test=pools.get("test"),
        class_names=tuple(classes),
        ignored_files=ignored,
    )
    return with_contiguous_classes(source, root)


def _listing(root: str) -> list[str]:
    """Names of files below `root`; an empty local folder is listed as `name/`."""
    if storage.is_remote(root):
        return storage.list_files(root)
    base = Path(root)
    if not base.is_dir():
        raise UserError(f"{root}: is not a folder; data.data_dir must hold one folder of images for each class")
    names = []
    for path in base.rglob("*"):
        name = path.relative_to(base).as_posix()
        names.append(f"{name}/" if path.is_dir() else name)
    return names


def _tree(where: str, names: list[str]) -> tuple[Tree, int]:
    tree: Tree = {}
    ignored = 0
    for name in names:
        top, _, file = name.partition("/")
        if top.startswith(".") or not _:
            ignored += bool(top) and not top.startswith(".")
            continue
        files = tree.setdefault(top, [])
        if file.lower().endswith(SUFFIXES) and not file.startswith("."):
            files.append(file)
        elif file and not file.endswith("/") and not file.startswith("."):
            ignored += 1
    if not tree:
        raise UserError(f"{where}: no class folders there; expected {where}/CLASS/IMAGE.png (or .jpg, .jpeg)")
    for name, files in tree.items():
        if not files:
            raise UserError(
                f"{inside(where, name, links=True)}: empty class: no {', '.join(SUFFIXES)} file in this folder"
            )
    ordered = sorted(tree, key=natural_order)
    return {name: sorted(tree[name], key=natural_order) for name in ordered}, ignored


def _pool(where: str, paths: list[str], labels: NDArray[np.int64], config: ImageData) -> Pool:
    return Pool(where, labels, lambda: _batches(paths, config))


def _batches(paths: list[str], config: ImageData) -> Iterator[Batch]:
    first: NDArray[np.uint8] | None = None
    rows: list[NDArray[np.uint8]] = []
    channels = config.channels
    for path in paths:
        with storage.open_read(path) as stream:
            image = _decode(path, stream)
        if channels == "auto":
            channels = 1 if image.mode == "L" else 3
        if channels == 1 and config.channels == "auto" and image.mode == "RGB" and not _is_grey(image):
            raise UserError(f"{path}: is coloured, while {paths[0]} is grey; set data.channels to 1 or 3")
        if config.resolution is not None:
            side = min(image.size)
            image = ImageOps.fit(image, (side, side)) if image.size != (side, side) else image
            image = image.resize((config.resolution,) * 2, Image.Resampling.BICUBIC)
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        if first is None:
            first = pixels
        if pixels.shape != first.shape:
            raise UserError(
                f"{path}: {pixels.shape[1]} x {pixels.shape[0]} pixels, while {paths[0]} has "
                f"{first.shape[1]} x {first.shape[0]}; all must be equal, or set data.resolution to crop and resize"
            )
        rows.append(pixels)
        if len(rows) == rows_per_batch(pixels.shape):
            yield np.stack(rows)
            rows = []
    if rows:
        yield np.stack(rows)


def _decode(path: str, stream: IO[bytes]) -> Image.Image:
    """The image upright, as mode L or RGB."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked here, strictly, instead of Pillow's warning
            image = Image.open(stream, formats=("PNG", "JPEG"))
            check_side(path, image.height, image.width)
            image.load()
            upright = ImageOps.exif_transpose(image)
    except UserError:
        raise
    except Exception as error:  # Pillow's readers raise many types on damaged files
        raise UserError(f"{path}: unreadable image: {str(error) or type(error).__name__}") from None
    if upright.mode in ("I;16", "I;16B", "I"):  # 16-bit grey
        wide = np.asarray(upright).astype(np.int64)
        return Image.fromarray((wide.clip(0, 65535) // 257).astype(np.uint8))
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        alpha = upright.convert("RGBA").getchannel("A").getextrema()
        if alpha != (255, 255):
            raise UserError(f"{path}: has transparent pixels; put it on a background first")
        return upright.convert("L" if upright.mode in ("LA", "L", "1") else "RGB")
    return upright.convert("L" if upright.mode in ("1", "L") else "RGB")


def _is_grey(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    return bool((pixels == pixels[..., :1]).all())
