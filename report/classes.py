"""How the classes come out: accuracy, what is taken for what, and how often each is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from report.artifacts import Artifacts, Json, number, numbers
from report.pictures import Pixels
from report.sections import Section, absent
from report.words import count, figure


def class_names(found: Artifacts, number_of: int) -> list[str]:
    """Names of the classes, or their numbers."""
    names = found.data_facts.get("class_names")
    known = [str(name) for name in names] if isinstance(names, list) else []
    return known + [str(index) for index in range(len(known), number_of)]


def classes(found: Artifacts) -> Section:
    """Accuracy per class, what is taken for what, and how often each class is made."""
    facts = found.evaluation_facts
    accuracy = _by_class(facts, "per_class_accuracy", "class_accuracy", "accuracy_per_class")
    confusion = facts.get("confusion", facts.get("confusion_matrix"))
    matrix = np.asarray(confusion, dtype=float) if _is_matrix(confusion) else None
    if not accuracy and matrix is not None:
        totals = matrix.sum(axis=1)
        accuracy = [float(matrix[i, i] / totals[i]) if totals[i] else None for i in range(len(matrix))]
    histogram = facts.get("class_histogram", facts.get("histogram"))
    made, real = histograms(histogram, found.data_facts)
    if not accuracy and matrix is None and not made:
        return absent("classes", "Classes", "No evaluation by class: the samples have no class, or were not evaluated.")
    names = class_names(found, max(len(accuracy), len(matrix) if matrix is not None else 0, len(made)))
    data: Json = {"accuracy": [], "histogram": [], "confusion": None}
    data["accuracy"] = [
        {"name": names[index], "share": 100 * value, "text": figure(value, percent=True), "mark": None}
        for index, value in enumerate(accuracy)
        if value is not None
    ]
    if made:
        top = max([*made, *real, 1e-12])
        data["histogram"] = [
            {
                "name": names[index],
                "share": 100 * value / top,
                "text": figure(value, percent=True),
                "mark": 100 * real[index] / top if index < len(real) else None,
            }
            for index, value in enumerate(made)
        ]
    if matrix is not None:
        data["confusion"] = _heat(matrix, names)
    return Section("classes", "Classes", "classes.html", data, lead="As the judge reads the samples.")


def _by_class(facts: Json, *keys: str) -> list[float | None]:
    value: Any = next((facts[key] for key in keys if facts.get(key)), None)
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list):
        return []
    return [number(one.get("accuracy", one.get("value"))) if isinstance(one, Mapping) else number(one) for one in value]


def histograms(value: object, data: Json) -> tuple[list[float], list[float]]:
    """Shares of generated and of real images per class."""
    if isinstance(value, Mapping):
        pick = next((value[key] for key in ("samples", "generated", "judged", "value") if key in value), None)
        made_raw = pick if pick is not None else list(value.values())
        real_raw = next((value[key] for key in ("real", "test", "data", "floor", "asked") if key in value), None)
    else:
        made_raw, real_raw = value, None
    if real_raw is None:
        real_raw = data.get("class_histogram")
    return shares(made_raw), shares(real_raw)


def shares(raw: object) -> list[float]:
    if isinstance(raw, Mapping):
        raw = raw.get("test") or raw.get("train") or list(raw.values())
    if isinstance(raw, Mapping):
        raw = list(raw.values())
    values = numbers(raw)
    total = sum(values)
    return [value / total for value in values] if total > 0 else []


def _is_matrix(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, list) and len(row) == len(value[0]) == len(numbers(row)) for row in value)
    )


def _heat(matrix: Pixels, names: list[str]) -> Json:
    totals = np.maximum(matrix.sum(axis=1, keepdims=True), 1e-12)
    share = matrix / totals
    return {
        "names": names[: matrix.shape[1]],
        "rows": [
            {
                "name": names[i],
                "cells": [
                    {
                        # The root makes rare confusions visible beside a diagonal near one.
                        "heat": round(float(share[i, j]) ** 0.5, 3),
                        "strong": share[i, j] > 0.3,
                        "text": count(matrix[i, j]) if matrix[i, j] else "",
                        "own": i == j,
                        "title": f"asked for {names[i]}, read as {names[j]}: {figure(share[i, j], percent=True)}",
                    }
                    for j in range(matrix.shape[1])
                ],
            }
            for i in range(matrix.shape[0])
        ],
    }
