"""Rules of requests, read from the docstrings of the installed client's own messages."""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any

import proto

from tests.fakes.vertex.errors import invalid

_LENGTH = re.compile(r"(less than|up to|no longer than|at most) (\d+) characters")
_NUMBERED = re.compile(r"\{project\}\s+is\s+a\s+project\s+number")


@cache
def described(kind: type) -> dict[str, str]:
    """What the docstring of a message says of each of its fields."""
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(kind.__doc__ or "").partition("Attributes:")[2].split("\n"):
        if head := re.match(r"    (\w+) \(.*\):$", line):
            name = head[1]
        elif name:
            found[name] = f"{found.get(name, '')} {line.strip()}"
    return {field: " ".join(text.split()) for field, text in found.items()}


def longest(text: str) -> int | None:
    """How many characters a field may have by its description; None: it does not say."""
    said = _LENGTH.search(text)
    return None if said is None else int(said[2]) - (said[1] == "less than")


def check(message: Any) -> None:
    """Refuses texts of a message, at any depth, that its documentation does not allow.

    Raises:
        ServiceError: INVALID_ARGUMENT.
    """
    said = described(type(message))
    for name in type(message).meta.fields:
        value = getattr(message, name)
        if isinstance(value, proto.Message):
            if value:
                check(value)
        elif isinstance(value, str) and value:
            most = longest(said.get(name, ""))
            if most is not None and len(value) > most:
                raise invalid(f"{name} has {len(value)} characters, at most {most} are allowed.")
            if _NUMBERED.search(said.get(name, "")) and not re.match(r"projects/\d+/", value):
                raise invalid(f"{name} {value!r}: the project must be its number.")
