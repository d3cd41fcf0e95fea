"""List filters: the part of AIP-160 that the Vertex AI and Cloud Logging list methods take, and paging."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf import json_format

from tests.fakes.vertex.errors import invalid

Message = TypeVar("Message")

_TERM = re.compile(
    r"""\s*(?P<negated>NOT\s+)?(?:
        (?P<function>\w+)\(\s*(?P<argument>"(?:[^"\\]|\\.)*")\s*\)
      | (?P<field>[\w.\-]+(?:\."[^"]*")?)\s*(?P<operator>>=|<=|!=|=|>|<|:)\s*(?P<value>"(?:[^"\\]|\\.)*"|[^\s()]+)
    )\s*""",
    re.VERBOSE,
)


def select(
    messages: Sequence[Message],
    expression: str,
    *,
    functions: dict[str, Callable[[Message, str], bool]] | None = None,
) -> list[Message]:
    """Messages for which every term of an expression joined by AND holds.

    Raises:
        ServiceError: INVALID_ARGUMENT when the expression cannot be read.
    """
    terms = []
    text = expression.strip().removeprefix("(").removesuffix(")") if expression.count("(") == 1 else expression
    for part in re.split(r"\s+AND\s+|\n+", text.strip()) if text.strip() else []:
        at = 0
        while at < len(part):
            found = _TERM.match(part, at)
            if not found:
                raise invalid(f"Invalid filter: {expression!r} at {part[at:]!r}")
            terms.append(found)
            at = found.end()
    return [m for m in messages if all(_holds(m, term, functions or {}) for term in terms)]


def _holds(message: Any, term: re.Match[str], functions: dict[str, Callable[[Any, str], bool]]) -> bool:
    if term["function"]:
        if term["function"] not in functions:
            raise invalid(f"Invalid filter: unknown function {term['function']}")
        result = functions[term["function"]](message, _unquote(term["argument"]))
    else:
        result = _compare(_lookup(message, term["field"]), term["operator"], _unquote(term["value"]))
    return result != bool(term["negated"])


def _lookup(message: Any, path: str) -> Any:
    value = message if isinstance(message, dict) else json_format.MessageToDict(type(message).pb(message))
    for name in path.replace('"', "").split("."):
        if not isinstance(value, dict):
            return None
        camel = re.sub(r"_(\w)", lambda m: m[1].upper(), name)
        value = value.get(name, value.get(camel))
    return value


def _compare(actual: Any, operator: str, wanted: str) -> bool:
    if operator == ":":
        return actual is not None and (wanted == "*" or wanted in (actual if isinstance(actual, dict) else str(actual)))
    if operator == "=":
        pattern = re.escape(wanted).replace(r"\*", ".*")
        return actual is not None and re.fullmatch(pattern, str(actual)) is not None
    if operator == "!=":
        return str(actual) != wanted
    if actual is None:
        return False
    left, right = _ordered(str(actual)), _ordered(wanted)
    return {">": left > right, "<": left < right, ">=": left >= right, "<=": left <= right}[operator]


def _ordered(text: str) -> Any:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return text


def _unquote(text: str) -> str:
    return text[1:-1].replace('\\"', '"') if text.startswith('"') else text


def page(items: Sequence[Message], size: int, token: str, *, largest: int = 100) -> tuple[list[Message], str]:
    """One page and the token of the next, as the list methods cut them."""
    start = int(token) if token else 0
    stop = start + (min(size, largest) if size else largest)
    return list(items[start:stop]), str(stop) if stop < len(items) else ""


def ordered(messages: Sequence[Message], order_by: str) -> list[Message]:
    """Sorts by one or more fields, `create_time desc` style; newest first when nothing is asked."""
    result = list(messages)
    for clause in reversed((order_by or "create_time desc").split(",")):
        field, _, direction = clause.strip().partition(" ")
        result.sort(key=lambda m: str(_lookup(m, field) or ""), reverse=direction.strip().lower() == "desc")
    return result


def listed(
    messages: Iterable[Any],
    request: Any,
    *,
    functions: dict[str, Callable[[Any, str], bool]] | None = None,
    largest: int = 100,
) -> tuple[list[Any], str]:
    """The page that a list request asks for of the messages under its parent, and the token of the next."""
    inside = [message for message in messages if message.name.startswith(f"{request.parent}/")]
    found = ordered(select(inside, request.filter, functions=functions), getattr(request, "order_by", ""))
    return page(found, request.page_size, request.page_token, largest=largest)
