"""How the classes come out: accuracy, what is taken for what, and how often each is made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from report.artifacts import Artifacts, Json
from report.pictures import Pixels
from report.sections import Section, absent
from report.words import count, figure


def class_names(artifacts: Artifacts, number_of: int) -> list[str]:
    """Names of the classes, or their numbers."""
    names = artifacts.data_facts.get("class_names")
    known = [str(name) for name in names] if isinstance(names, list) else []
    return known + [str(index) for index in range(len(known), number_of)]


def classes(artifacts: Artifacts) -> Section:
    """Accuracy per class, what is taken for what, and how often each class is made."""
    facts = artifacts.measured
    accuracy, made, real = facts.per_class_accuracy or [], shares([]), shares([])
    if facts.class_histogram is not None:
        made, real = shares(facts.class_histogram.samples), shares(facts.class_histogram.real)
    matrix = np.asarray(facts.confusion, dtype=float) if facts.confusion else None
    if not accuracy and matrix is None and not made:
        return absent("classes", "Classes", "No evaluation by class: the samples have no class, or were not evaluated.")
    names = class_names(artifacts, max(len(accuracy), len(matrix) if matrix is not None else 0, len(made)))
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


def shares(counts: Sequence[float]) -> list[float]:
    """Counts of classes as shares of their sum; none where nothing was counted."""
    total = sum(counts)
    return [value / total for value in counts] if total > 0 else []


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
