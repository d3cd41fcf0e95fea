"""The configuration as a JSON schema, for editors; and as YAML in which every setting says what it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import TypeAdapter

from factory.job import AnyJob
from pipelines.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_FOLDER = ".textdiffusion"
WIDTH = 116
Json = dict[str, Any]


def job_schema() -> Json:
    """The schema of a job's YAML: one of the four kinds of job."""
    return {"$schema": DIALECT, "title": "TextDiffusion job", **TypeAdapter(AnyJob).json_schema()}


def settings_schema() -> Json:
    """The schema of textdiffusion.yaml."""
    return {"$schema": DIALECT, **Settings.model_json_schema(), "title": "TextDiffusion settings"}


SCHEMAS = {"job": job_schema, "settings": settings_schema}


@dataclass(frozen=True)
class Setting:
    """One key: its depth, what it may be, its default, what it is for; `section` if it holds others."""

    path: tuple[str, ...]
    allowed: str
    default: Any
    required: bool
    text: str
    section: bool

    @property
    def name(self) -> str:
        return self.path[-1]


def walk(schema: Json, values: Any = None, node: Json | None = None, path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Every key of `schema` in order, sections before what is in them.

    Where a section may be one of several, the one whose fixed keys agree with `values` is taken, or else the first.
    """
    node = _resolved(schema, node or schema)
    required = node.get("required", [])
    for name, field in node.get("properties", {}).items():
        value = values.get(name) if isinstance(values, Mapping) else None
        inner = _section(schema, field, value)
        described = field.get("description") or (inner or {}).get("description") or ""
        allowed = "" if inner else describe(schema, field)
        yield Setting((*path, name), allowed, field.get("default"), name in required, described, inner is not None)
        if inner is not None:
            yield from walk(schema, value, inner, (*path, name))


def describe(schema: Json, field: Json) -> str:
    """What a value may be, in a few words."""
    field = _resolved(schema, field)
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " or ".join(dict.fromkeys(describe(schema, one) for one in field[key]))
    if "enum" in field:
        return ", ".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    kind = str(field.get("type", "anything"))
    if kind == "array":
        parts = field.get("prefixItems")
        return f"list of {describe(schema, parts[0] if parts else field.get('items', {}))}"
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    limits = ""
    if low is not None and high is not None:
        limits = f" from {low:,} to {high:,}" if abs(high) < 1e15 else f" from {low:,}"
    elif low is not None:
        limits = f" above {low:,}" if "exclusiveMinimum" in field else f" from {low:,}"
    return {"object": "mapping", "string": "text"}.get(kind, kind) + limits


def commented(schema: Json, values: Mapping[str, Any], chosen: Mapping[str, Any], head: str, schema_path: str) -> str:
    """A YAML text of all keys of `schema` with what they mean.

    Args:
        schema: of the whole file.
        values: every value, defaults too.
        chosen: the values that are written; the others stand there as comments.
        head: a sentence for the first line.
        schema_path: where the editor finds the schema.
    """
    lines = [f"# yaml-language-server: $schema={schema_path}", f"# {head}"]
    for setting in walk(schema, values):
        depth = len(setting.path) - 1
        value, given = _at(values, setting.path), _at(chosen, setting.path)
        if depth == 0 and (setting.section or lines[-1].startswith(" ")):
            lines.append("")
        mark = "" if given is not None else "# "
        plain = setting.allowed in ("text", "text or null", "boolean", "mapping") or setting.allowed == str(value)
        note = "; ".join(part for part in (setting.text, "" if plain else setting.allowed) if part)
        shown = next((one for one in (given, value, setting.default) if one is not None), None)
        body = "" if setting.section else f" {_inline(shown)}"
        line = f"{'  ' * depth}{mark}{setting.name}:{body}"
        if note and len(line) + len(note) + 3 > WIDTH:
            lines.append(f"{'  ' * depth}# {note}")
            note = ""
        lines.append(f"{line}  # {note}" if note else line)
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    """A value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _resolved(schema: Json, node: Json) -> Json:
    while "$ref" in node:
        node = {**schema["$defs"][node["$ref"].rsplit("/", 1)[1]], **{k: v for k, v in node.items() if k != "$ref"}}
    return node


def _section(schema: Json, field: Json, value: Any) -> Json | None:
    """The section that `field` is, with keys of its own; None if it is a plain value."""
    options = [_resolved(schema, one) for one in field.get("oneOf") or field.get("anyOf") or [field]]
    sections = [one for one in options if "properties" in one]
    if not sections:
        return None
    for one in sections:
        fixed = {name: inner["const"] for name, inner in one["properties"].items() if "const" in inner}
        if isinstance(value, Mapping) and all(value.get(name) == const for name, const in fixed.items()):
            return one
    return sections[0]


def _at(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = values
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
