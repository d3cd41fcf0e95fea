"""Samples and the training images nearest to them: has the model learned, or learned by heart?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from report.artifacts import Artifacts
from report.charts import Axis, Chart, Series, line_chart, steps
from report.pictures import TILE_PIXELS, Pixels, as_pixels, png, within
from report.sections import Section, absent
from report.words import figure

PAIRS, PAIR_BYTES = 16, 160_000


def neighbours(artifacts: Artifacts) -> Section:
    """Samples and the training images closest to them, and all distances against the test set's own."""
    arrays = artifacts.evaluation.arrays("neighbours.npz")
    title = "Nearest training images"
    made = _images(arrays, "samples")
    near = _images(arrays, "neighbours")
    distances = _values(arrays, "distances")
    real = _values(arrays, "test_distances")
    chart = distance_chart(distances, real)
    if made is None or near is None or len(made) != len(near):
        if chart is None:
            return absent("neighbours", title, "Neighbours in the training set were not computed.")
        return Section("neighbours", title, "neighbours.html", {"pairs": [], "charts": [[("", chart)]]})
    shown = _values(arrays, "pair_distances")
    if len(shown) != len(made):
        shown = distances if len(distances) >= len(made) else np.zeros(0)
    middle = float(np.median(real)) if len(real) else None
    order = np.argsort(shown[: len(made)], kind="stable") if len(shown) else np.arange(len(made))
    limit = within(PAIRS, 2 * min(TILE_PIXELS, made.shape[1]) ** 2 * (3 if made.ndim == 4 else 1), PAIR_BYTES)
    pairs = []
    for index in order[:limit]:
        distance = float(shown[index]) if len(shown) else None
        ratio = f"{distance / middle:.2f}×" if distance is not None and middle else ""
        pairs.append(
            {
                "sample": png(made[index], TILE_PIXELS),
                "neighbour": png(near[index], TILE_PIXELS),
                "distance": figure(distance),
                "ratio": ratio,
            }
        )
    lead = "The closest pairs first: on the left the sample, on the right the training image nearest to it."
    if middle:
        lead += f" A real test image lies {figure(middle)} from its nearest training image (median)."
    data = {"pairs": pairs, "charts": [[("", chart)]] if chart else []}
    return Section("neighbours", title, "neighbours.html", data, lead=lead)


def distance_chart(made: Pixels, real: Pixels) -> Chart | None:
    """Histograms of the samples' and of the test set's distances, as shares."""
    both = [one for one in (made, real) if len(one)]
    if not both:
        return None
    everything = np.concatenate(both)
    if everything.max() <= everything.min():
        return None
    edges = np.linspace(everything.min(), everything.max(), 33)
    series = []
    for name, values, style in (("test set", real, "ink"), ("samples", made, "accent")):
        if len(values):
            shares = np.histogram(values, edges)[0] / len(values)
            series.append(Series(name, steps(edges.tolist(), shares.tolist()), style, fill=True))
    return line_chart(
        "Distance to the nearest training image",
        series,
        Axis("distance"),
        Axis("share", include=(0.0,), format=lambda value: f"{100 * value:.3g} %"),
        note="Samples piled up left of the test set would be copies of training images.",
    )


def _images(arrays: Mapping[str, Pixels], name: str) -> Pixels | None:
    return as_pixels(arrays[name]) if name in arrays else None


def _values(arrays: Mapping[str, Pixels], name: str) -> Pixels:
    """The finite numbers of an array [N]; none where it is missing."""
    values: Pixels = arrays.get(name, np.zeros(0)).astype(float)
    return values[np.isfinite(values)]
