"""Images of a data set that Hugging Face's `datasets` loads: a column of images, and usually one of classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.images.sources.batches import batches
from core.images.sources.intake import Intake
from core.images.sources.source import Item, Labels, Pool, Source, natural_order, unlabelled, with_contiguous_classes
from core.sources.huggingface import loaded, the_column


@contextmanager
def open_huggingface(place: str | None, intake: Intake) -> Iterator[Source]:
    """The data set in the files `place`, or else the one that data.dataset names."""
    config = intake.config
    with loaded(place, config, intake.tally) as parts:
        where = place or str(config.dataset)
        rows = parts["train"]
        kinds = {name: type(feature).__name__ for name, feature in rows.features.items()}
        pictures = [name for name, kind in kinds.items() if kind == "Image"]
        images = the_column(where, config.image_column, "image_column", pictures, list(kinds), "images")
        classes = [name for name, kind in kinds.items() if kind == "ClassLabel"]
        classes = classes or [name for name in ("label", "labels", "class") if name in kinds]
        labels: str | None = None
        if classes or config.label_column:
            labels = the_column(where, config.label_column, "label_column", classes, list(kinds), "classes")
        names = _names(rows, labels) if labels else ()
        pools = {part: _pool(f"{where}[{part}]", table, images, labels, names, intake) for part, table in parts.items()}
        source = Source(
            train=pools["train"],
            validation=pools.get("validation"),
            test=pools.get("test"),
            class_names=names,
            intake=intake,
        )
        yield with_contiguous_classes(source, where) if labels else unlabelled(source)


def _names(rows: Any, column: str) -> tuple[str, ...]:
    """Of the classes; empty where they are numbers."""
    feature = rows.features[column]
    if type(feature).__name__ == "ClassLabel":
        return tuple(str(name) for name in feature.names)
    if str(getattr(feature, "dtype", "")) in ("string", "large_string"):
        return tuple(sorted({str(value) for value in rows.unique(column)}, key=natural_order))
    return ()


def _labels(where: str, rows: Any, column: str, names: tuple[str, ...]) -> Labels:
    values = rows.with_format("arrow")[:][column].to_pylist() if len(rows) else []
    if any(isinstance(value, str) for value in values):
        known = {name: index for index, name in enumerate(names)}
        unknown = sorted({str(value) for value in values} - set(known))
        if unknown:
            raise UserError(f"{where}: class {unknown[0]!r} is not among those of train")
        return np.array([known[str(value)] for value in values], np.int64)
    if not all(isinstance(value, int) for value in values):
        raise UserError(f"{where}: column {column!r} holds {type(values[0]).__name__}; allowed are numbers or names")
    return np.array(values, np.int64)


def _pool(where: str, rows: Any, images: str, labels: str | None, names: tuple[str, ...], intake: Intake) -> Pool:
    import datasets

    encoded = rows.select_columns([images]).cast_column(images, datasets.Image(decode=False))
    values = _labels(where, rows, labels, names) if labels else np.zeros(len(rows), np.int64)

    def items(order: NDArray[np.int64] | None = None) -> Iterator[Item]:
        chosen = encoded if order is None else encoded.select(order)
        for place, row in enumerate(chosen):
            name = f"{where}: image {place if order is None else order[place]}"
            yield Item(name, _content(name, row[images]))

    return Pool(where, values, lambda: batches(items(), intake), items, lambda order: batches(items(order), intake))


def _content(name: str, value: Any) -> bytes:
    """The encoded image. A path alone is refused: it would be read from wherever the data set says."""
    content = value.get("bytes") if isinstance(value, dict) else None
    if not content:
        raise UserError(f"{name}: is not in the data set itself; save it with its images embedded")
    return bytes(content)
