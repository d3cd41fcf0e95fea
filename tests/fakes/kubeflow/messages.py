"""Messages of the v2beta1 API by the models that KFP's own client was generated with, unknown fields refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import kfp_server_api

from tests.fakes.vertex.errors import invalid

_CLIENT = kfp_server_api.ApiClient()
_LARGEST = 200  # items of a page
NEVER = datetime(1, 1, 1, tzinfo=UTC)
"""How Go's zero time is written, which stands for what has not happened."""


def parse(kind: str, content: bytes) -> Any:
    """A message of this kind.

    Raises:
        ServiceError: the content is no JSON, has unknown fields, or a value of the wrong type.
    """
    try:
        values = json.loads(content)
        _check(kind, values, kind)
        return _CLIENT.deserialize(SimpleNamespace(data=content), kind)
    except (ValueError, TypeError, kfp_server_api.ApiException) as error:
        raise invalid(f"{kind}: {error}") from None


def to_json(value: Any) -> Any:
    """A message, or messages in lists and mappings, as JSON."""
    return _CLIENT.sanitize_for_serialization(value)


def _check(kind: str, value: Any, where: str) -> None:
    if value is None:
        return
    if repeated := re.fullmatch(r"list\[(.*)\]", kind):
        for item in value:
            _check(repeated[1], item, where)
    elif named := re.fullmatch(r"dict\(str, (.*)\)", kind):
        for item in value.values():
            _check(named[1], item, where)
    elif kind not in _CLIENT.NATIVE_TYPES_MAPPING:
        model = getattr(kfp_server_api.models, kind)
        if not model.openapi_types:  # an enum
            if value not in model.allowable_values:
                raise ValueError(f"{where}: no value is called {value!r}")
            return
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected an object")
        names = {name: model.openapi_types[key] for key, name in model.attribute_map.items()}
        for name, item in value.items():
            if name not in names:
                raise ValueError(f"{where}: unknown field {name!r}")
            _check(names[name], item, f"{where}.{name}")
    elif kind == "str" and not isinstance(value, str):
        raise ValueError(f"{where}: expected a string")


def page(
    items: Iterable[Any], query: dict[str, str], fields: Callable[[Any], dict[str, Any]]
) -> tuple[list[Any], str, int]:
    """(items of the page, token of the next, how many there are) for `filter`, `sort_by`, `page_size` and `page_token`.

    Raises:
        ServiceError: the filter or order names what cannot be filtered or ordered by.
    """
    chosen = list(items)
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
        if unknown := set(predicate) - {"operation", "key", "stringValue", "string_value"}:
            raise invalid(f"Filter: unknown fields {sorted(unknown)}")
        if predicate["operation"] not in ("EQUALS", 1):
            raise invalid(f"Filter: operation {predicate['operation']} is not served here.")
        wanted, key = predicate.get("stringValue", predicate.get("string_value")), predicate["key"]
        chosen = [item for item in chosen if _field(fields, item, key) == wanted]
    if order := query.get("sort_by"):
        key, _, direction = order.partition(" ")
        chosen.sort(key=lambda item: _field(fields, item, key), reverse=direction == "desc")
    begin = int(query.get("page_token") or 0)
    end = begin + min(int(query.get("page_size") or 20), _LARGEST)
    return chosen[begin:end], str(end) if end < len(chosen) else "", len(chosen)


def _field(fields: Callable[[Any], dict[str, Any]], item: Any, key: str) -> Any:
    known = fields(item)
    if key not in known:
        raise invalid(f"Cannot filter or sort on field {key!r}.")
    return known[key]
