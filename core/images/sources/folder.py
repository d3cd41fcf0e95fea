"""A folder of class folders of images; or folders of those for training, validation and test; or images alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from core import storage
from core.errors import UserError
from core.images.sources import decode
from core.images.sources.batches import batches
from core.images.sources.intake import Intake
from core.images.sources.source import Item, Pool, Source, natural_order, unlabelled, with_contiguous_classes
from core.names import inside
from core.sources.listing import listing
from core.sources.parts import PARTS, SYNONYMS, Part, part_of

Tree = dict[str, list[str]]  # class name -> names of its images below the root, in natural order; "" has no class


def open_folder(data_dir: str, intake: Intake) -> Source:
    """The images below `data_dir`; a class is a folder, numbered in natural order of the names."""
    root = data_dir.rstrip("/")
    if not storage.exists(root):
        raise UserError(f"{data_dir}: no such folder; data.data_dir must hold one folder of images for each class")
    images, folders = _images(root, intake)
    parts = _parts(root, images, folders)
    trees = {part: _tree(root, folder, images, folders, intake) for part, folder in parts.items()}
    classes = list(trees["train"])
    for part, tree in trees.items():
        if list(tree) != classes:
            odd = sorted(set(tree) ^ set(classes))[0]
            what = f"class folders differ from those of train: {odd!r} is only in one of them"
            if not odd:
                one, other = ("no class folders", "has some") if "" in tree else ("class folders", "has none")
                what = f"has {one}, while train {other}"
            raise UserError(f"{inside(root, parts[part], links=True)}: {what}")
    pools = {part: _pool(root, parts[part], tree, intake) for part, tree in trees.items()}
    source = Source(
        train=pools["train"],
        validation=pools.get("validation"),
        test=pools.get("test"),
        class_names=tuple(classes),
        intake=intake,
    )
    return unlabelled(source) if classes == [""] else with_contiguous_classes(source, root)


def _images(root: str, intake: Intake) -> tuple[list[str], list[str]]:
    """Names of images below `root`, and of folders; what is no image is told to the tally."""
    listed = listing(root)
    if not (listed.files or listed.folders) and not storage.is_remote(root):
        raise UserError(f"{root}: is no folder of files; data.data_dir must hold one folder of images for each class")
    intake.tally.skip_all(listed.skipped)
    readable, images = decode.suffixes(), []
    for name in listed.files:
        if name.lower().endswith(readable):
            images.append(name)
        else:
            heic = name.lower().endswith(decode.HEIC)
            intake.tally.skip(name, decode.HEIC_SKIPPED if heic else "no images")
    return images, listed.folders


def _parts(root: str, images: list[str], folders: list[str]) -> dict[Part, str]:
    """The folder of each part below `root`; `train` alone, as "", where the top folders are classes."""
    tops = sorted({name.split("/")[0] for name in images if "/" in name} | {n for n in folders if "/" not in n})
    filled = {name.split("/")[0] for name in images if "/" in name}
    named = {top: part for top in tops if (part := part_of(top)) is not None}
    if not named:
        return {"train": ""}
    classes = [top for top in tops if top in filled and top not in named]
    if classes:
        raise UserError(
            f"{root}: {_quoted(named)} {'is named' if len(named) == 1 else 'are named'} like a split, beside the"
            f" folders of images {_quoted(classes)}: either all are splits ({', '.join(PARTS)}, each with class"
            " folders) or all are classes; rename or move what is not"
        )
    chosen: dict[Part, str] = {}
    for top, part in named.items():
        if top not in filled:
            continue
        if part in chosen:
            raise UserError(f"{root}: {chosen[part]!r} and {top!r} are both the {part} split; allowed is one of them")
        chosen[part] = top
    if "train" not in chosen:
        allowed = ", ".join(SYNONYMS["train"])
        raise UserError(f"{root}: found {_quoted(named)}, but no images of a training split; allowed names: {allowed}")
    return chosen


def _tree(root: str, part: str, images: list[str], folders: list[str], intake: Intake) -> Tree:
    """The images of a part by class."""
    where = inside(root, part, links=True) if part else root
    prefix = f"{part}/" if part else ""
    below = [name for name in images if name.startswith(prefix)]
    tree: Tree = {name.removeprefix(prefix): [] for name in folders if _is_class(name, prefix)}
    loose = []
    for name in below:
        top, slash, _ = name.removeprefix(prefix).partition("/")
        if slash:
            tree.setdefault(top, []).append(name)
        else:
            loose.append(name)
    if loose and not any(tree.values()):
        return {"": sorted(loose, key=natural_order)}
    if not any(tree.values()):
        raise UserError(
            f"{where}: no images there; expected {where}/CLASS/IMAGE.png (or {', '.join(decode.suffixes()[1:])})"
        )
    for name in loose:
        intake.tally.skip(name, "images outside the class folders")
    for name, files in tree.items():
        if not files:
            readable = ", ".join(decode.suffixes())
            raise UserError(f"{inside(where, name, links=True)}: empty class: no {readable} file in this folder")
        if part and part_of(name) is not None:
            raise UserError(f"{inside(where, name, links=True)}: a class named like a split; move its content up")
    return {name: sorted(tree[name], key=natural_order) for name in sorted(tree, key=natural_order)}


def _is_class(folder: str, prefix: str) -> bool:
    name = folder.removeprefix(prefix)
    return folder.startswith(prefix) and "/" not in name


def _pool(root: str, part: str, tree: Tree, intake: Intake) -> Pool:
    where = inside(root, part, links=True) if part else root
    paths = [inside(root, file, links=True) for files in tree.values() for file in files]
    labels: NDArray[np.int64] = np.repeat(np.arange(len(tree)), [len(files) for files in tree.values()])
    return Pool(
        where,
        labels.astype(np.int64),
        lambda: batches(map(Item, paths), intake),
        lambda: map(Item, paths),
        lambda order: batches((Item(paths[index]) for index in order), intake),
        paths,
    )


def _quoted(names: Iterable[str]) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "")
