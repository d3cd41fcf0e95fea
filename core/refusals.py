"""What pydantic says against a setting, as one sentence for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from core.secrets import redact
from core.similar import did_you_mean

PLAIN = {"missing": "is missing", "extra_forbidden": "there is no such key"}
"""What is said in place of pydantic's own words, by the kind of error."""


def sentence(section: type[BaseModel], error: dict[str, Any]) -> str:
    """What one of pydantic's errors says: the key, what is wrong, the value, and what is allowed."""
    kind, key = error["type"], ".".join(str(part) for part in error["loc"])
    what = error["msg"].removeprefix("Value error, ")  # which pydantic puts before the sentences of validators
    what = PLAIN.get(kind, what)
    value = "" if kind == "missing" else f", found {short(error['input'])}"
    if kind == "value_error" and isinstance(error["input"], Mapping):  # of keys that do not go together: it names them
        return f"{key}: {what}" if key else what
    if kind == "extra_forbidden":
        value += _allowed_keys(section, error["loc"])
    if kind == "string_pattern_mismatch" and (description := _description(section, error["loc"])):
        what = f"allowed is {description}"
    return f"{key or 'value'}: {what}{value}"


def _description(section: type[BaseModel], loc: Sequence[int | str]) -> str:
    """What the field at `loc` says of itself; an entry of a list has its list's."""
    text = ""
    for part in loc:
        if isinstance(part, str) and part in section.model_fields:
            field = section.model_fields[part]
            text = field.description or ""
            section = next(iter(_sections(field.annotation)), BaseModel)
    return text


def short(value: object) -> str:
    """`value` as it is shown in a refusal: without secrets, and cut."""
    try:
        return redact(repr(value), 57)
    except ValueError:  # an integer of thousands of digits
        return f"a {type(value).__name__} too long to print"


def _allowed_keys(section: type[BaseModel], loc: Sequence[int | str]) -> str:
    """What a key that is not known may have been meant as, and the keys that are allowed in its place."""
    places = [section]
    for part in loc[:-1]:
        fields = [place.model_fields[str(part)] for place in places if str(part) in place.model_fields]
        places = [found for field in fields for found in _sections(field.annotation)]
    allowed = sorted({field.alias or name for place in places for name, field in place.model_fields.items()})
    if not allowed:
        return ""
    found = str(loc[-1])
    meant = did_you_mean(found, allowed) or did_you_mean(found, _keys(section))
    return f"; {meant}allowed: {', '.join(allowed)}"


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key in a section and in the sections below it, dotted."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        for inner in _sections(field.annotation):
            yield from _keys(inner, f"{prefix}{name}.")
