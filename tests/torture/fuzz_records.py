"""What earlier runs, registries and models left behind: records, lines of JSON, texts that a terminal would obey."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.torture.material import VALUES, as_json, mutated
from tests.torture.trial import require

_STEP = {"name": "sample", "state": "succeeded", "seconds": 1.0, "cached": False, "error": None}
_ARTIFACT = {"path": "steps/sample", "uri": "/s", "type": "t", "metadata": {"parents": '{"model": {"uri": "/m"}}'}}
RECORDS: dict[str, Any] = {
    "runs/images/odd/run.json": {
        "id": "odd",
        "pipeline": "images",
        "job": "tiny",
        "status": "running",
        "created": "2026-01-01T00:00:00+00:00",
        "seconds": 1.5,
        "config": {"train": {"seed": 1}},
        "steps": [{**_STEP, "artifacts": {"samples": _ARTIFACT}}],
        "pid": 1,
        "host": "h",
        "gate": {"decision": "keep", "reason": "worse"},
        "search": {"metric": "m", "value": 1.0, "best": 1, "settings": {}, "train": {}},
    },
    "runs/images/odd/metrics.json": {"distance": {"value": 1.5, "floor": 1, "n": 40, "judge": "a", "better": "lower"}},
    "registry/tiny/versions/00001/manifest.json": {
        "model": "tiny",
        "version": 1,
        "uri": "",
        "created": "c",
        "metrics": {"distance": {"value": 1.5}},
        "evaluation_key": "k",
        "weights_sha256": "w",
        "lineage": {"run": "odd", "parents": {"model": "/m"}},
        "files": {"model/weights": "h"},
    },
    "registry/tiny/champion.json": {"version": 1, "previous": [1], "reason": "r", "created": "c"},
    "registry/tiny/history/1.json": {"created": "c", "event": "promote", "reason": "r", "version": 1},
    "registry/tiny/data.json": {"created": "c", "fingerprint": "f", "config_hash": "h", "files": {"a": "1"}},
}
SEPARATORS = "\n\r\t\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\x00\x1b\x7f\x9b\u202e"
TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(SEPARATORS)), max_size=40)


def records(folder: Path) -> st.SearchStrategy[Any]:
    """One record that is odd, with its name; the others are good."""

    @st.composite
    def build(draw: st.DrawFn) -> tuple[str, bytes]:
        name = draw(st.sampled_from(sorted(RECORDS)))
        value = json.loads(json.dumps(RECORDS[name]))
        if draw(st.booleans()):
            return name, draw(mutated([as_json(value)]))
        place = value
        while isinstance(place, dict) and place:
            key = draw(st.sampled_from(sorted(place)))
            if not isinstance(place[key], dict) or not place[key] or draw(st.booleans()):
                place[key] = draw(st.one_of(VALUES, st.sampled_from([10**30, -1, 10**400, [1], "\ud800", 1e308])))
                break
            place = place[key]
        return name, as_json(value)

    return build()


def feed_records(odd: tuple[str, bytes], folder: Path) -> None:
    """Everything that lists goes on; nothing but a UserError comes from what reads one."""
    from core.errors import UserError
    from factory.drift import check
    from factory.registry import Registry
    from factory.run_folder import list_runs
    from local import gallery
    from local.lineage import trace

    place = folder / "place"
    shutil.rmtree(place, ignore_errors=True)
    good = {**RECORDS["runs/images/odd/run.json"], "id": "good"}
    for name, value in {**RECORDS, "runs/images/good/run.json": good}.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(odd[1] if name == odd[0] else as_json(value))
    runs, registry = place / "runs", Registry(place / "registry")
    require("good" in [run.id for run in list_runs(runs)], "a good run is not listed")
    for run in list_runs(runs):
        run.metrics()
    registry.listed("tiny")
    registry.history("tiny")
    gallery.write(runs, registry.root)
    trace("good/samples", runs, registry.root)
    try:
        check({}, {}, registry.root, "tiny")
    except UserError as error:
        require("tiny" in str(error), f"names nothing: {error}")


def texts(folder: Path) -> st.SearchStrategy[Any]:
    return st.lists(TEXTS, max_size=5)


def feed_texts(texts: list[str], folder: Path) -> None:
    """Lines of JSON come back; what is printed commands no terminal; a text field keeps what was written."""
    from core import storage, yamltext
    from core.config import validate, with_overrides
    from core.errors import UserError
    from core.printable import printable, printable_json
    from core.text.config import TextData

    storage.write_json_lines(folder / "rows.jsonl", [{"text": text} for text in texts])
    require([row["text"] for row in storage.read_json_lines(folder / "rows.jsonl")] == texts, "lines differ")
    for text in texts:
        shown = printable(text, one_line=True) + printable_json(json.dumps(text, ensure_ascii=False))
        require(not any(mark in shown for mark in SEPARATORS), f"is not harmless: {shown!r}")
        try:
            parsed = yamltext.parse(text, "x")
            given = with_overrides({"data": {"source": "file"}}, [f"data.data_dir={text}"])
            kept = validate(TextData, given["data"], "x").data_dir
        except UserError:
            continue
        if isinstance(parsed, yamltext.Written) and parsed.value is not None:
            require(kept == str(parsed), f"{text!r} became {kept!r}")
