"""The training section: loss, loss per noise level, learning rate, and previews as they appeared."""

from __future__ import annotations

from report.artifacts import Artifacts, Folder, Json, number, number_in
from report.charts import Axis, Chart, Point, Series, line_chart, smooth
from report.pictures import png_file
from report.sections import Section, absent, mapping
from report.words import count, duration, figure

MAX_PREVIEWS = 24
PREVIEW_PIXELS = 640
PREVIEW_TEXT = 3000
PREVIEW_BYTES = 1_400_000
EXAMPLES = "examples seen"


def curve(rows: list[Json], key: str) -> list[Point]:
    """(examples, row[key]) of the rows that have both."""
    points = []
    for row in rows:
        x, y = number(row.get("examples")), number(row.get(key))
        if x is not None and y is not None:
            points.append((x, y))
    return points


def validation_rows(rows: list[Json]) -> list[Json]:
    """One flat row per validation, with `examples` and the validation's own numbers."""
    return [
        {**mapping(row["validation"]), "examples": row.get("examples")}
        for row in rows
        if isinstance(row.get("validation"), dict)
    ]


def training(artifacts: Artifacts) -> Section:
    """Curves and previews of the diffusion model (and of its autoregressive control, where there is one)."""
    rows = artifacts.model.lines("train_log.jsonl")
    pictures = previews(artifacts.model)
    if not rows and not pictures:
        return absent("training", "Training", "No training log: the model was imported, or the log was not kept.")
    checks = validation_rows(rows)
    charts = [
        variants(loss_charts("Loss", rows, checks)),
        variants([bin_chart(checks, artifacts.modality)]),
    ]
    other = artifacts.autoregressive.lines("train_log.jsonl")
    if other:
        charts.append(variants(loss_charts("Loss of the autoregressive control", other, validation_rows(other))))
    rate = line_chart(
        "Learning rate",
        [Series("learning rate", curve(rows, "lr"), "ink", fill=True)],
        Axis(EXAMPLES),
        Axis("", include=(0.0,)),
    )
    norm = curve(rows, "grad_norm")
    gradient = line_chart(
        "Gradient norm",
        [Series("each step", norm, "faint", legend=False), Series("smoothed", smooth(norm), "ink")],
        Axis(EXAMPLES),
        Axis("", log=True),
    )
    small = [variants([rate]), variants([gradient])]
    return Section(
        "training",
        "Training",
        "training.html",
        {
            "charts": [one for one in charts if one],
            "small": [one for one in small if one],
            "previews": pictures,
        },
        lead=_lead(rows, artifacts.model_facts),
    )


def variants(charts: list[Chart | None] | list[tuple[str, Chart | None]]) -> list[tuple[str, Chart]]:
    """Charts the reader can switch between, each with the name of its button."""
    named = [one if isinstance(one, tuple) else ("", one) for one in charts]
    return [(name, chart) for name, chart in named if chart is not None]


def loss_charts(title: str, rows: list[Json], checks: list[Json]) -> list[tuple[str, Chart | None]]:
    """Training and validation loss, over linear and over logarithmic examples."""
    train, held_out = curve(rows, "loss"), curve(checks, "loss")
    named = []
    for name, log in (("linear", False), ("log", True)):
        series = [
            Series("each step", train, "faint", legend=False),
            Series("training, smoothed", smooth(train), "ink"),
            Series("validation", held_out, "accent", dots=len(held_out) < 40),
        ]
        named.append((name, line_chart(title, series, Axis(EXAMPLES, log), Axis("loss", True))))
    return named


def bin_chart(checks: list[Json], modality: str) -> Chart | None:
    """Validation loss over the noise level: a faint curve for each earlier check, the last one in accent."""
    curves = []
    for row in checks:
        points = []
        for key, value in row.items():
            place = _noise_level(key)
            loss = number(value)
            if place is not None and loss is not None:
                points.append((place, loss))
        if len(points) > 1:
            curves.append((number(row.get("examples")) or 0.0, sorted(points)))
    if not curves:
        return None
    first, last = curves[0], curves[-1]
    keep = curves[1:-1][:: max(1, len(curves) // 8)]
    images = modality == "images"
    log = images and all(x > 0 for x, _ in last[1])
    series = [Series("between", points, "faint", legend=False) for _, points in keep]
    if len(curves) > 1:
        series.append(Series(f"after {count(first[0])} examples", first[1], "dashed"))
    series.append(Series(f"after {count(last[0])} examples", last[1], "accent", dots=True))
    label = "noise level σ" if images else "noise level γ"
    return line_chart(
        "Validation loss by noise level",
        series,
        Axis(label, log),
        Axis("loss", images),
        note="Fixed noise, so that the curves differ only by what was learned between them.",
    )


def previews(folder: Folder) -> list[Json]:
    """The previews (pictures or texts) in the order they were drawn, thinned to a count and a byte budget."""
    paths = folder.files("previews/*.png") or folder.files("previews/*.txt")
    if len(paths) > MAX_PREVIEWS:
        step = (len(paths) - 1) / (MAX_PREVIEWS - 1)
        paths = [paths[round(index * step)] for index in range(MAX_PREVIEWS)]
    shown: list[Json] = []
    for path in paths:
        seen = number_in(path)
        label = path.stem if seen is None else f"{seen:,} examples seen"
        if path.suffix == ".txt":
            shown.append({"src": "", "label": label, "text": path.read_text("utf-8", errors="replace")[:PREVIEW_TEXT]})
            continue
        try:
            source, width, height = png_file(path, PREVIEW_PIXELS)
        except Exception as error:  # a picture can be broken in as many ways as there are formats
            folder.faults.append(f"Preview {path.name} could not be read ({type(error).__name__}).")
            continue
        shown.append({"src": source, "label": label, "width": width, "height": height})
    while sum(len(one["src"]) for one in shown) > PREVIEW_BYTES and len(shown) > 2:
        shown = shown[:1] + shown[2:-1:2] + shown[-1:]
    return shown


def _noise_level(key: str) -> float | None:
    """The noise level a validation key speaks of: `loss/sigma=0.5` of images, `loss/-3` (gamma) of text."""
    kind, _, level = key.partition("/")
    try:
        return float(level.removeprefix("sigma=")) if kind == "loss" else None
    except ValueError:
        return None


def _lead(rows: list[Json], model: Json) -> str:
    parts = []
    seconds = [number(row.get("seconds")) for row in rows if number(row.get("seconds")) is not None]
    seen = number(model.get("examples_seen")) or next(
        (number(row.get("examples")) for row in reversed(rows) if row.get("examples")), None
    )
    if seen:
        parts.append(f"{count(seen)} examples seen")
    if seconds:
        parts.append(f"in {duration(seconds[-1])}")
    if rate := number(model.get("examples_per_second")):
        parts.append(f"at {figure(rate)} examples a second")
    return " ".join(parts) + "." if parts else ""
