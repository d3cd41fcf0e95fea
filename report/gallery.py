"""The gallery of many runs: one HTML file next to them, with everything inline but the reports that it links to.

    from report.gallery import Entry, Registered, build
    build("runs/index.html", [Entry(artifacts, "images/digits-.../report.html"), ...], versions)

Reads what the steps left behind, as a report does. The newest runs are shown with pictures, older ones without, so
that the page stays small enough to open anywhere.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from core import storage
from core.printable import printable
from report import image_sections, text_sections
from report.artifacts import Artifacts, Json, number
from report.charts import Axis, Chart, Point, Series, line_chart, smooth
from report.lineage import Node, draw, graph
from report.metrics import heading, metric_rows
from report.page import fill
from report.pictures import as_pixels, png, sheet
from report.sections import Section, flatten, mapping
from report.training import EXAMPLES, curve, validation_rows, variants
from report.words import count, duration, moment

log = logging.getLogger(__name__)
SHOWN, PICTURED, PLAYER_BYTES = 200, 40, 6_000_000
THUMBNAILS, TILES, FRAMES, EXCERPT = 12, 24, 16, 260
CURVES = 6  # trainings of a job in one chart; gallery.css has a style for each
MODELS = 24  # in the lineage graph


@dataclass(frozen=True)
class Entry:
    """One run: what it left behind, and the address of its report as seen from the gallery ("" if it has none)."""

    artifacts: Artifacts
    report: str = ""

    @property
    def id(self) -> str:
        """The run's; an HTML parser would change control characters, and the page's script find no such run."""
        return printable(str(self.artifacts.run.get("id") or ""), one_line=True)

    @property
    def address(self) -> str:
        """The report's, as a link: a folder may be called `javascript:...`."""
        return quote(self.report)

    @property
    def anchor(self) -> str:
        """Of the run in the gallery, as a link."""
        return f"#run-{quote(self.id, safe='')}"


@dataclass(frozen=True)
class Registered:
    """A version in the model registry, and the run that made it."""

    model: str
    version: int
    run: str
    weights_sha256: str
    champion: bool
    provisional: bool = False

    @property
    def name(self) -> str:
        return f"{self.model}@{self.version}"


def build(
    out: str | Path,
    entries: Sequence[Entry],
    versions: Sequence[Registered] = (),
    playgrounds: Sequence[str] = (),
    services: Sequence[str] = (),
) -> None:
    """Write the gallery of `entries`, given oldest first, to the file or URI `out`. Raises OSError if it cannot."""
    storage.write_bytes(out, render(entries, versions, playgrounds, services).encode())


def render(
    entries: Sequence[Entry],
    versions: Sequence[Registered] = (),
    playgrounds: Sequence[str] = (),
    services: Sequence[str] = (),
) -> str:
    """The whole page as HTML text. From it seen, `playgrounds` are FOLDER/index.html, and `services` NAME.html."""
    newest = list(reversed(entries))[:SHOWN]
    made = {version.run: version for version in sorted(versions, key=lambda one: one.champion)}
    room, cards = PLAYER_BYTES, []
    for place, entry in enumerate(newest):
        try:
            one = card(entry, made.get(entry.id), pictures=place < PICTURED and room > 0)
        except Exception as error:  # a run is shown in many ways, and its files may hold anything
            log.warning("gallery: run %s cannot be shown (%s: %s); left out", entry.id, type(error).__name__, error)
            continue
        room -= len(str(one["path"] or ""))
        cards.append(one)
    try:
        drawings = lineage(newest, versions)
    except Exception:  # one odd run among many is no reason to show none
        drawings = []
    sections = [Section("runs", "Runs", "cards")]
    if cards:
        sections += [Section("closer", "One run", "closer")]
    if len(cards) > 1:
        sections += [Section("compare", "Compare", "compare")]
    curves = overlaid(newest)
    if curves:
        sections += [Section("curves", "Curves", "curves")]
    if drawings:
        sections += [Section("lineage", "Lineage", "lineage.html")]
    return fill(
        "gallery.html",
        scripts=("page.js", "parts.js", "gallery.js"),
        styles=("report.css", "gallery.css"),
        what="gallery",
        sections=sections,
        cards=cards,
        left_out=len(entries) - len(newest),
        jobs=sorted({one["job"] for one in cards}),
        states=[(word, number_of) for word, number_of in Counter(one["verdict"]["word"] for one in cards).items()],
        champions=[one for one in cards if one["champion"]],
        playgrounds=[(printable(page.split("/")[-2], one_line=True), quote(page)) for page in playgrounds],
        services=[(printable(Path(page).stem, one_line=True), quote(page)) for page in services],
        curves=curves,
        drawings=drawings,
        summary="From data to models to registered versions.",
        facts=[one["facts"] for one in cards],
    )


def card(entry: Entry, version: Registered | None, *, pictures: bool) -> Json:
    """Everything that the page shows of one run. A broken file costs its own part alone."""
    artifacts, run = entry.artifacts, entry.artifacts.run
    head = _quietly(artifacts, heading) or {"title": str(run.get("job") or "Untitled run"), "facts": [], "verdict": {}}
    rows = _quietly(artifacts, metric_rows) or []
    verdict = head["verdict"] or {"word": "Unknown", "text": "", "tone": "quiet"}
    text = artifacts.modality == "text"
    when = moment(run.get("created")) if run.get("created") else ""
    path, picture = None, None
    infill: list[Json] = []
    if pictures:
        path = _quietly(artifacts, text_sections.path if text else _short_path)
        picture = None if text else _quietly(artifacts, thumbnail)
        infill = _quietly(artifacts, _infill) or [] if text else []
    return {
        "id": entry.id,
        "job": head["title"],
        "modality": artifacts.modality,
        "report": entry.address,
        "anchor": entry.anchor,
        "when": when,
        "spent": duration(run["seconds"]) if number(run.get("seconds")) else "",
        "status": str(run.get("status") or ""),
        "verdict": verdict,
        "version": version.name if version else "",
        "champion": bool(version and version.champion),
        "provisional": bool(version and version.provisional and not version.champion),
        "picture": picture,
        "excerpt": (_quietly(artifacts, excerpt) or "") if text else "",
        "head": head,
        "keys": rows[:2],
        "rows": rows,
        "path": path,
        "infill": infill,
        "spans": (_quietly(artifacts, lambda one: text_sections.fusion(one).data.get("spans")) or []) if text else [],
        "drawings": _own_lineage(entry),
        "summary": f"What {entry.id} made from what",
        "facts": {
            "id": entry.id,
            "title": f"{head['title']}, {when}" if when else head["title"],
            "job": head["title"],
            "key": artifacts.measured.evaluation_key,
            "metrics": [
                [row["name"], row["title"], row["value"], row["floor"], row["better"], row["number"]] for row in rows
            ],
            "settings": {key: str(value) for key, value in flatten(_settings(run))},
        },
    }


def thumbnail(artifacts: Artifacts) -> Json | None:
    """A few samples in two rows, classes in turn."""
    arrays = artifacts.samples.arrays("samples.npz")
    images = as_pixels(arrays["images"]) if "images" in arrays else None
    if images is None:
        return None
    labels = arrays.get("labels")
    if labels is not None and labels.shape == (len(images),):
        turn = np.zeros(len(labels), np.int64)  # how many of its class stand before a sample
        for label in np.unique(labels):
            turn[labels == label] = np.arange((labels == label).sum())
        images = images[np.lexsort((labels, turn))]
    chosen = images[:THUMBNAILS]
    page = sheet(chosen, max(1, min(6, len(chosen))), gap=max(1, chosen.shape[1] // 14))
    return {"src": png(page, 480), "width": page.shape[1], "height": page.shape[0]}


def excerpt(artifacts: Artifacts) -> str:
    """The beginning of the first text that was written without a prompt."""
    rows = [row for row in artifacts.samples.lines("samples.jsonl") if isinstance(row.get("text"), str)]
    free = [row for row in rows if not row.get("prompt")] or rows
    return str(free[0]["text"])[:EXCERPT] if free else ""


def overlaid(newest: Sequence[Entry]) -> list[list[tuple[str, Chart]]]:
    """For each job with several trainings, the losses of its newest ones in one chart, by training and validation."""
    runs: dict[str, list[tuple[str, list[Json]]]] = {}
    known: set[str] = set()  # a training that many runs were served from cache is one curve
    for entry in newest[:PICTURED]:
        rows = _quietly(entry.artifacts, lambda found: found.model.lines("train_log.jsonl")) or []
        weights = str(entry.artifacts.model_facts.get("weights_sha256") or entry.id)
        mine = runs.setdefault(str(entry.artifacts.run.get("job") or ""), [])
        if rows and weights not in known and len(mine) < CURVES:
            known.add(weights)
            mine.append((entry.id, rows))
    found = []
    for job, trainings in runs.items():
        charts = [
            (name, line_chart(f"Loss of {job}" if job else "Loss", series, Axis(EXAMPLES), Axis("loss", True)))
            for name, series in (
                ("validation", _series(trainings, lambda rows: curve(validation_rows(rows), "loss"))),
                ("training", _series(trainings, lambda rows: smooth(curve(rows, "loss")))),
            )
        ]
        if len(trainings) > 1 and (drawn := variants(charts)):
            found.append(drawn)
    return found


def _series(trainings: Sequence[tuple[str, list[Json]]], points: Callable[[list[Json]], list[Point]]) -> list[Series]:
    """A curve for each training, newest first, each of a style of its own."""
    return [Series(name, points(rows), f"run{place}") for place, (name, rows) in enumerate(trainings)]


def lineage(newest: Sequence[Entry], versions: Sequence[Registered]) -> list[Json]:
    """Data sets, the models that were trained on them, and the versions that were registered, newest first."""
    models: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []
    data: dict[str, tuple[Entry, list[float]]] = {}
    for entry in newest:
        facts = entry.artifacts.model_facts
        weights = str(facts.get("weights_sha256") or "")
        if not weights or weights in models or len(models) == MODELS:
            continue
        seen = f"{count(facts['examples_seen'])} seen" if number(facts.get("examples_seen")) is not None else ""
        row = float(len(models))
        models[weights] = Node(
            f"model-{weights}", str(entry.artifacts.run.get("job") or "model"), weights[:10], seen, 1, row,
            entry.anchor, weights,
        )  # fmt: skip
        content = str(entry.artifacts.data_facts.get("content_sha256") or "")
        if content:
            data.setdefault(content, (entry, []))[1].append(row)
            edges.append((f"data-{content}", f"model-{weights}"))
    nodes = list(models.values())
    for content, (first, rows) in data.items():
        artifacts = first.artifacts
        total = sum(number(value) or 0 for value in mapping(artifacts.data_facts.get("counts")).values())
        unit = "images" if artifacts.modality == "images" else "characters"
        title = str(artifacts.data_facts.get("source") or "data")
        nodes.append(
            Node(f"data-{content}", title, content[:10], f"{count(total)} {unit}", 0, rows[0], first.anchor, content)
        )
    taken: set[str] = set()
    for version in sorted(versions, key=lambda one: (not one.champion, -one.version)):
        known = models.get(version.weights_sha256)
        if known is None or version.weights_sha256 in taken:
            continue
        taken.add(version.weights_sha256)
        state = "champion" if version.champion else "provisional" if version.provisional else "registered"
        nodes.append(replace(known, id=version.name, title=version.name, detail=state, column=2))
        edges.append((known.id, version.name))
    return draw(nodes, edges) if len(nodes) > 1 else []


def _own_lineage(entry: Entry) -> list[Json]:
    nodes, edges = _quietly(entry.artifacts, graph) or ([], [])
    if len(nodes) < 2:
        return []
    return draw(
        [replace(node, href=f"{entry.address}{node.href}" if entry.report else "#closer") for node in nodes], edges
    )


def _short_path(artifacts: Artifacts) -> Json | None:
    return image_sections.path(artifacts, tiles=TILES, frames=FRAMES)


def _infill(artifacts: Artifacts) -> list[Json]:
    modes = text_sections.samples(artifacts).data.get("modes", [])
    return [{**mode, "texts": mode["texts"][:2]} for mode in modes if mode["id"] == "infill"]


def _settings(run: Json) -> Json:
    told = {key: run[key] for key in ("code_version", "image") if run.get(key)}
    return {**mapping(run.get("config")), **told}


def _quietly(artifacts: Artifacts, build: Any) -> Any:
    """What `build` makes of a run, or None where its files hold something that nobody expected."""
    try:
        return build(artifacts)
    except Exception as error:  # one broken run is no reason to show none
        artifacts.faults.append(f"{artifacts.run.get('id')}: a part could not be drawn ({type(error).__name__}).")
        return None
