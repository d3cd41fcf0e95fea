"""JSON from outside, one value a file or one a line: UTF-8, of sane depth, numbers and characters."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from core.errors import UserError

MAX_DEPTH = 64  # what reads a value may be recursive
MAX_DIGITS = 300  # more do not fit into a float
_LONG_NUMBER = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse(data: bytes | str, where: str) -> Any:
    """The JSON value in `data`; `where` names it in errors.

    Raises:
        UserError: not JSON, not UTF-8, nested too deep, an integer too long, half of a surrogate pair.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        value = json.loads(text, parse_int=_integer) if _LONG_NUMBER.search(text) else json.loads(text)
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _check_depth(value)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON: {error}") from None
    return value


def parse_lines(data: bytes, where: str, *, odd: Callable[[UserError], None] | None = None) -> list[Any]:
    r"""The values in JSON lines. Lines end with \n and nothing else: texts may hold every other separator.

    Args:
        data: the file's content.
        where: names it in errors.
        odd: is told of each line that is not JSON, which is left out; None: it raises.

    Raises:
        UserError: a line is not JSON.
    """
    rows = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(parse(line, f"{where}: line {number}"))
        except UserError as error:
            if odd is None:
                raise
            odd(error)
    return rows


def to_lines(rows: Iterable[object]) -> bytes:
    """`rows` as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner = [(one.values() if isinstance(one, dict) else one) for one in level if isinstance(one, dict | list)]
        if not inner:
            return
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
