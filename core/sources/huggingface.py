"""Data sets by Hugging Face's `datasets`: of huggingface.co by name, or files: a saved data set, or parquet.

The library is the extra `huggingface`. No code of a data set is run (versions before 4 did), and nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core import storage
from core.errors import UserError
from core.names import inside
from core.sources.config import HubPlace
from core.sources.listing import listing
from core.sources.parts import SYNONYMS, Part, part_of
from core.sources.summary import Tally
from core.storage import scratches

SAVED = ("dataset_dict.json", "dataset_info.json")  # of save_to_disk


@contextmanager
def loaded(place: str | None, config: HubPlace, tally: Tally) -> Iterator[dict[Part, Any]]:
    """The parts of a data set, each a `datasets.Dataset`: of the folder or file `place`, else of `config.dataset`.

    Raises:
        UserError: the library is not installed, the data set cannot be loaded, or has no training part.
    """
    datasets = _library()
    with scratches.temporary_folder("huggingface") as scratch:
        where = place or f"data.dataset {config.dataset}"
        try:
            if place is None:
                dataset = datasets.load_dataset(config.dataset, config.subset, revision=config.revision)
            else:
                dataset = _of_files(datasets, _here(place, scratch), scratch)
        except UserError:
            raise
        except Exception as error:  # the library raises kinds of its own, pyarrow's, fsspec's and requests'
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise UserError(f"{where}: cannot be loaded by `datasets`: {reason}") from None
        yield _parts(where, dataset if isinstance(dataset, dict) else {"train": dataset}, tally)


def holds_data_set(place: str) -> bool:
    """Whether the local folder or file `place` is a saved data set, or has parquet files."""
    names = listing(place).files if Path(place).is_dir() else [Path(place).name]
    return not set(SAVED).isdisjoint(names) or any(name.endswith(".parquet") for name in names)


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise UserError(
            "data.source: huggingface needs the library `datasets`: pip install 'textdiffusion[huggingface]'"
        ) from None
    datasets.disable_progress_bars()
    return datasets


def _here(place: str, scratch: Path) -> str:
    """`place` on this machine."""
    if not storage.is_remote(place):
        return place
    storage.copy_tree(place, scratch / "copy")
    return str(scratch / "copy")


def _of_files(datasets: Any, place: str, scratch: Path) -> Any:
    if not Path(place).exists():
        raise UserError(f"{place}: no such folder; data.data_dir must hold a saved data set or parquet files")
    if any(Path(inside(place, name)).is_file() for name in SAVED):
        return datasets.load_from_disk(place)
    root = Path(place)
    names = [root.name] if root.is_file() else listing(place).files
    folder = root.parent if root.is_file() else root
    files: dict[str, list[str]] = {}
    for name in names:
        if name.endswith(".parquet"):
            files.setdefault(_part_of_file(name), []).append(str(inside(folder, name, links=True)))
    if not files:
        raise UserError(
            f"{place}: neither a saved data set ({' or '.join(SAVED)}) nor parquet files; for a folder of images set"
            " data.source: folder"
        )
    return datasets.load_dataset("parquet", data_files=files, cache_dir=str(scratch / "cache"))


def _part_of_file(name: str) -> str:
    """`train-00000-of-00002.parquet`, `data/test.parquet`, `validation/0.parquet`: the part in a name, else train."""
    pieces = [piece for text in name.removesuffix(".parquet").split("/") for piece in (text, text.split("-")[0])]
    return next((part for piece in reversed(pieces) if (part := part_of(piece)) is not None), "train")


def _parts(where: str, splits: Mapping[str, Any], tally: Tally) -> dict[Part, Any]:
    parts: dict[Part, Any] = {}
    for name, rows in splits.items():
        part = part_of(str(name))
        if part is None:
            tally.skip(str(name), f"parts that are no split ({len(rows):,} rows)")
        elif part in parts:
            raise UserError(f"{where}: has two {part} parts; allowed is one")
        else:
            parts[part] = rows
    if "train" not in parts:
        raise UserError(f"{where}: has the parts {', '.join(map(str, splits))}; one must be {SYNONYMS['train'][0]}")
    return parts


def the_column(where: str, wanted: str | None, key: str, fitting: list[str], columns: list[str], what: str) -> str:
    """The column to read: the one that data.`key` names, or the only one of `columns` that is fitting.

    Raises:
        UserError: there is none, or several.
    """
    if wanted is not None:
        if wanted not in columns:
            raise UserError(f"data.{key}: found {wanted!r}; {where} has the columns {', '.join(columns)}")
        return wanted
    if len(fitting) != 1:
        listed = "none" if not fitting else ", ".join(fitting)
        raise UserError(
            f"{where}: which column holds {what}? Found {listed}; set data.{key} to one of {', '.join(columns)}"
        )
    return fitting[0]
