"""The lineage graph: what was made from what, each by its hash, drawn twice (wide and narrow)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from report.artifacts import Artifacts, Json, number, short_hash
from report.sections import Section, absent, mapping, verdict
from report.words import count, figure

WIDTH, HEIGHT = 176, 84  # of a node, in SVG units
GAP_X, GAP_Y = 44, 22


@dataclass(frozen=True)
class Node:
    id: str
    title: str
    hash: str
    detail: str
    column: int
    row: float
    href: str
    full: str = ""


def lineage(artifacts: Artifacts) -> Section:
    """data -> judge and models -> samples -> evaluation -> gate, with links to the sections that show them."""
    nodes, edges = graph(artifacts)
    if len(nodes) < 2:
        return absent("lineage", "Lineage", "There are not enough artifacts to draw where they came from.")
    by_id = {node.id: node.title for node in nodes}
    words = ", ".join(f"{by_id[right]} from {by_id[left]}" for left, right in edges if {left, right} <= by_id.keys())
    return Section(
        "lineage", "Lineage", "lineage.html", {"drawings": draw(nodes, edges), "summary": f"Lineage: {words}."}
    )


def draw(nodes: list[Node], edges: list[tuple[str, str]]) -> list[Json]:
    """The graph twice: in columns, and as one column for narrow screens. Edges to absent nodes are left out."""
    by_id = {node.id: node for node in nodes}
    kept = [(by_id[left], by_id[right]) for left, right in edges if left in by_id and right in by_id]
    return [_wide(nodes, kept), _narrow(nodes, kept)]


def graph(artifacts: Artifacts) -> tuple[list[Node], list[tuple[str, str]]]:
    """The nodes that exist and all edges that could."""
    data, judge, model = artifacts.data_facts, artifacts.judge_facts, artifacts.model_facts
    control, nodes = artifacts.autoregressive.json("model.json"), []
    unit = "images" if artifacts.modality == "images" else "characters"

    def add(id: str, title: str, digest: object, detail: str, column: int, row: float, href: str) -> None:
        nodes.append(Node(id, title, short_hash(digest), detail, column, row, href, str(digest or "")))

    if data:
        total = sum(number(value) or 0 for value in mapping(data.get("counts")).values())
        add("data", "Data", data.get("content_sha256"), f"{count(total)} {unit}", 0, 1, "#data")
    if judge.sha256:
        detail = f"{figure(judge.accuracy, percent=True)} accurate" if judge.accuracy is not None else "frozen"
        add("judge", "Judge", judge.sha256, detail, 1, 0, "#metrics")
    if model:
        seen = count(model["examples_seen"]) + " seen" if number(model.get("examples_seen")) is not None else ""
        add("model", "Model", model.get("weights_sha256"), seen, 1, 1, "#training")
    if control:
        add("control", "Autoregressive", control.get("weights_sha256"), "control", 1, 2, "#training")
    if artifacts.samples:
        made = f"{count(artifacts.sampling.count)} made" if artifacts.sampling.count is not None else ""
        add("samples", "Samples", _content(artifacts), made, 2, 1, "#samples")
    if artifacts.metrics:
        key = artifacts.measured.evaluation_key
        add("evaluation", "Evaluation", key, f"{len(artifacts.metrics)} metrics", 3, 1, "#metrics")
    if artifacts.verdict is not None:
        champion = artifacts.verdict.champion
        against = f"against version {champion.version}" if champion and champion.version is not None else ""
        add("gate", verdict(artifacts)["word"], None, against, 4, 1, "#top")
    edges = [
        ("data", "judge"),
        ("data", "model"),
        ("data", "control"),
        ("control", "samples"),
        ("model", "samples"),
        ("judge", "evaluation"),
        ("samples", "evaluation"),
        ("evaluation", "gate"),
    ]
    return nodes, edges


def _content(artifacts: Artifacts) -> str:
    """SHA-256 of the sample file, unless it is so large that the report would have to wait for it."""
    path = artifacts.samples.file("samples.npz") or artifacts.samples.file("samples.jsonl")
    if path is None or path.stat().st_size > 64 * 2**20:
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _wide(nodes: list[Node], edges: list[tuple[Node, Node]]) -> Json:
    used_columns = sorted({node.column for node in nodes})
    used_rows = sorted({node.row for node in nodes})
    at = {
        node.id: (
            used_columns.index(node.column) * (WIDTH + GAP_X) + 2,
            used_rows.index(node.row) * (HEIGHT + GAP_Y) + 2,
        )
        for node in nodes
    }
    paths = []
    for left, right in edges:
        x1, y1 = at[left.id][0] + WIDTH, at[left.id][1] + HEIGHT / 2
        x2, y2 = at[right.id][0] - 1, at[right.id][1] + HEIGHT / 2
        # An edge that skips a column runs level first, so that it does not cross the nodes it passes.
        bend = x2 - GAP_X / 2 if right.column - left.column > 1 else (x1 + x2) / 2
        curve = f"C{bend:.0f} {y1:.0f} {bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"
        paths.append(f"M{x1:.0f} {y1:.0f}H{bend - GAP_X / 2:.0f}{curve}m-6 -4l6 4l-6 4")
    width = len(used_columns) * (WIDTH + GAP_X) - GAP_X + 4
    return _drawing("wide", nodes, at, paths, width, len(used_rows) * (HEIGHT + GAP_Y) - GAP_Y + 4)


def _narrow(nodes: list[Node], edges: list[tuple[Node, Node]]) -> Json:
    order = sorted(nodes, key=lambda node: (node.column, node.row))
    at = {node.id: (28.0, index * (HEIGHT + GAP_Y) + 2.0) for index, node in enumerate(order)}
    place = {node.id: index for index, node in enumerate(order)}
    paths = []
    for left, right in edges:
        x, y1, y2 = 28.0, at[left.id][1] + HEIGHT / 2, at[right.id][1] + HEIGHT / 2
        if place[right.id] - place[left.id] == 1:
            middle = x + WIDTH / 2
            paths.append(f"M{middle:.0f} {at[left.id][1] + HEIGHT:.0f}V{at[right.id][1] - 1:.0f}m-4 -6l4 6l4 -6")
        else:
            paths.append(f"M{x:.0f} {y1:.0f}C2 {y1:.0f} 2 {y2 - 12:.0f} {x - 1:.0f} {y2:.0f}m-6 -4l6 4l-6 4")
    return _drawing("narrow", order, at, paths, WIDTH + 32, len(order) * (HEIGHT + GAP_Y) - GAP_Y + 4)


def _drawing(
    kind: str, nodes: list[Node], at: Mapping[str, tuple[float, float]], paths: list[str], width: float, height: float
) -> Json:
    return {
        "kind": kind,
        "width": round(width),
        "height": round(height),
        "paths": paths,
        "nodes": [{"node": node, "x": round(at[node.id][0]), "y": round(at[node.id][1])} for node in nodes],
        "node_width": WIDTH,
        "node_height": HEIGHT,
    }
