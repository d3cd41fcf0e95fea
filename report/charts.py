"""Line charts as plain data: positions in per cent of the plot, so that one drawing fits every width.

The template stretches an SVG over the plot (strokes do not scale) and sets labels as ordinary text, which keeps its
size on a phone and on paper. All positions have their origin at the lower left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from report.words import compact, figure

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, right, low, high in per cent of the plot
MAX_POINTS = 320  # a screen shows no more


@dataclass(frozen=True)
class Series:
    """One curve. `style` is a CSS class: ink, accent, faint, dashed; `dots` marks each point, without `line` alone."""

    name: str
    points: list[Point]
    style: str = "ink"
    dots: bool = False
    line: bool = True
    fill: bool = False
    legend: bool = True
    labels: list[str] | None = None  # shown instead of the value when a point is inspected


@dataclass(frozen=True)
class Axis:
    """An axis: its label, whether it is logarithmic, values that must be inside it, and free room at its ends."""

    label: str
    log: bool = False
    include: tuple[float, ...] = ()
    format: Callable[[float], str] = compact
    room: float = 0.0


@dataclass(frozen=True)
class Tick:
    at: float
    label: str
    minor: bool


@dataclass(frozen=True)
class Curve:
    name: str
    style: str
    path: str
    area: str
    dots: str
    legend: bool


@dataclass(frozen=True)
class Rule:
    """A horizontal line at `at`, and on which side of the plot and of the line its label is."""

    at: float
    label: str
    left: bool
    below: bool


@dataclass(frozen=True)
class Chart:
    """Everything the chart template needs; `inspect` is what the page's script shows on hover and arrow keys."""

    title: str
    summary: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    curves: list[Curve]
    rules: list[Rule] = field(default_factory=list)
    inspect: list[dict[str, object]] = field(default_factory=list)
    note: str = ""


def line_chart(
    title: str,
    series: Iterable[Series],
    x: Axis,
    y: Axis,
    *,
    summary: str = "",
    rules: Sequence[tuple[float, str]] = (),
    note: str = "",
) -> Chart | None:
    """Lay out `series` over two axes; None when no curve has a drawable point. `rules` are horizontal lines."""
    kept = [(one, _thin(_drawable(one.points, x.log, y.log))) for one in series]
    kept = [(one, points) for one, points in kept if points]
    if not kept:
        return None
    rules = [(value, label) for value, label in rules if math.isfinite(value) and not (y.log and value <= 0)]
    xs = [point[0] for _, points in kept for point in points] + list(x.include)
    ys = [point[1] for _, points in kept for point in points] + list(y.include) + [value for value, _ in rules]
    x_range = _range(xs, x.log, margin=x.room)
    y_range = _range(ys, y.log, margin=0.06)
    place_x, place_y = _placer(x_range, x.log), _placer(y_range, y.log)
    placed = [[(place_x(px), place_y(py)) for px, py in points] for _, points in kept]
    return Chart(
        title=title,
        summary=summary or _summary(title, kept),
        x_label=x.label,
        y_label=y.label,
        x_ticks=ticks(x_range, x.log, x.format),
        y_ticks=ticks(y_range, y.log, y.format),
        curves=[_curve(one, places) for (one, _), places in zip(kept, placed, strict=True)],
        rules=_labelled([(place_y(value), label) for value, label in rules], placed),
        inspect=[
            _inspected(one, points, places, x.label)
            for (one, points), places in zip(kept, placed, strict=True)
            if one.legend or one.labels
        ],
        note=note,
    )


def _curve(one: Series, places: Sequence[Point]) -> Curve:
    """A series as SVG paths, from its places in percent."""
    path = "M" + "L".join(f"{10 * px:.1f} {1000 - 10 * py:.1f}" for px, py in places)
    # A zero-length segment with round caps stays a circle however the drawing is stretched.
    marked = one.dots or len(places) == 1  # a line through a single point is nothing
    dots = "".join(f"M{10 * px:.1f} {1000 - 10 * py:.1f}h.01" for px, py in places) if marked else ""
    area = f"{path}L{10 * places[-1][0]:.1f} 1000L{10 * places[0][0]:.1f} 1000Z" if one.fill else ""
    return Curve(one.name, one.style, path if one.line else "", area, dots, one.legend)


def _inspected(one: Series, points: Sequence[Point], places: Sequence[Point], x_label: str) -> dict[str, object]:
    """A series as the page's script shows it under the pointer."""
    labels = one.labels if one.labels and len(one.labels) == len(points) else None
    texts = labels or [figure(y, digits=4) for _, y in points]
    rows = [
        [round(px, 2), round(py, 2), f"{x_label} {_exact(x)}", text]
        for (px, py), (x, _), text in zip(places, points, texts, strict=True)
    ]
    return {"name": one.name, "style": one.style, "points": rows}


def ticks(limits: Point, log: bool, form: Callable[[float], str]) -> list[Tick]:
    """Round tick values inside `limits`; every second label is minor and gives way on narrow screens."""
    low, high = limits
    place = _placer(limits, log)
    if log and high / low >= 8:
        decades = math.log10(high / low)
        steps = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.6 else (1.0, 2.0, 5.0)
        stride = max(1, math.ceil(decades / 7))
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        values = [step * 10.0**power for power in exponents if power % stride == 0 for step in steps]
    else:
        raw = (high - low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
        first = math.ceil(low / step - 1e-9)
        values = [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]
    inside = [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9) or low <= value <= high]
    return [Tick(place(value), form(value), index % 2 == 1) for index, value in enumerate(inside)]


CHARACTER, LINE, INDENT = 1.1, 8.0, 2.5  # of a label, in per cent of the plot: a character, a line, left of it
ROOM = tuple((left, below) for below in (False, True) for left in (False, True))


def _labelled(rules: Sequence[tuple[float, str]], curves: Sequence[list[Point]]) -> list[Rule]:
    """The rules, each label where the least of curves and of other labels runs through it; `curves` in per cent."""
    found: list[Rule] = []
    boxes: list[Box] = []
    for at, label in rules:
        width = min(60.0, CHARACTER * len(label))
        tried: list[tuple[float, int, Box, Rule]] = []
        for left, below in ROOM:
            low = at - LINE if below else at
            box = (INDENT if left else 100 - width, INDENT + width if left else 100.0, low, low + LINE)
            hidden = sum(_runs_through(points, box) for points in curves) + 100.0 * (low < 0 or low + LINE > 108)
            overlaps = sum(
                box[0] < other[1] and other[0] < box[1] and box[2] < other[3] and other[2] < box[3] for other in boxes
            )
            tried.append((hidden + 50.0 * overlaps, len(tried), box, Rule(at, label, left, below)))
        _, _, box, rule = min(tried)
        boxes.append(box)
        found.append(rule)
    return found


def _runs_through(points: list[Point], box: Box) -> int:
    """In how many of a dozen places along its width a curve is inside the box (left, right, low, high)."""
    left, right, low, high = box
    xs, ys = np.array(sorted(points)).T
    places = np.linspace(left, right, 12)
    heights = np.interp(places, xs, ys, left=np.nan, right=np.nan)
    return int(((heights > low - 1) & (heights < high + 1)).sum())


def steps(edges: Sequence[float], heights: Sequence[float]) -> list[Point]:
    """The outline of a histogram."""
    points: list[Point] = [(edges[0], 0.0)]
    for left, right, height in zip(edges[:-1], edges[1:], heights, strict=True):
        points += [(left, height), (right, height)]
    return [*points, (edges[-1], 0.0)]


def smooth(points: list[Point], span: float = 0.04) -> list[Point]:
    """Centred mean over `span` of the curve, narrower near its start, where a loss falls too fast for a wide one."""
    half = max(1, round(span * len(points) / 2))
    sums = [0.0, *accumulate(y for _, y in points)]
    result = []
    for index, (x, _) in enumerate(points):
        reach = min(half, index // 3)
        low, high = index - reach, min(len(points), index + reach + 1)
        result.append((x, (sums[high] - sums[low]) / (high - low)))
    return result


def _drawable(points: Iterable[Point], log_x: bool, log_y: bool) -> list[Point]:
    return [
        (x, y)
        for x, y in points
        if math.isfinite(x) and math.isfinite(y) and not (log_x and x <= 0) and not (log_y and y <= 0)
    ]


def _thin(points: list[Point]) -> list[Point]:
    """Keep the lowest and the highest point of each slice, so that spikes survive."""
    if len(points) <= MAX_POINTS:
        return points
    size = 2 * len(points) / MAX_POINTS
    kept: list[Point] = [points[0]]
    for index in range(MAX_POINTS // 2):
        part = points[int(index * size) : int((index + 1) * size)]
        if part:
            low, high = min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])
            kept += sorted({low, high})
    return [*kept, points[-1]]


def _range(values: Sequence[float], log: bool, margin: float) -> Point:
    low, high = min(values), max(values)
    if log:
        ratio = max(high / low, 1.02) ** margin
        return (low / ratio, high * ratio) if high > low else (low / 1.5, high * 1.5)
    gap = (high - low) * margin
    if high == low:
        gap = abs(high) * 0.1 or 1.0
    return (low - gap if low - gap >= 0 or low < 0 else 0.0, high + gap)


def _placer(limits: Point, log: bool) -> Callable[[float], float]:
    low, high = (math.log(value) for value in limits) if log else limits
    return lambda value: 100 * ((math.log(value) if log else value) - low) / ((high - low) or 1.0)


def _exact(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 1000 else figure(value, digits=4)


def _summary(title: str, kept: list[tuple[Series, list[Point]]]) -> str:
    parts = [f"{one.name} from {figure(points[0][1])} to {figure(points[-1][1])}" for one, points in kept if one.legend]
    return f"{title}: " + "; ".join(parts) if parts else title
