"""The reference page of the Python API, from the docstrings of its names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import textdiffusion as td

METHODS = {  # of what a class has: what one calls, in the order of use
    "ImageDiffusion": ("loss", "sample", "draw", "save", "load"),
    "TextDiffusion": ("sample", "save", "load"),
    "Images": ("images", "labels", "batches", "save"),
    "Texts": ("save",),
}


def library() -> Iterator[str]:
    """Every name of `import textdiffusion as td`, with its arguments, shapes and errors."""
    yield "# Python\n\nMade from the code. `import textdiffusion as td` imports nothing heavy before a name is used."
    yield "[In Python](../how-to/core-alone.md) shows them at work.\n"
    for name in td._HOMES:
        thing = getattr(td, name)
        yield f"## td.{name}\n"
        shown = thing if inspect.isfunction(thing) or name == "ImageDiffusion" else None
        yield from _described(f"td.{name}", thing, shown)
        for method in METHODS.get(name, ()):
            yield f"### {name}.{method}\n"
            yield from _described(method, getattr(thing, method), getattr(thing, method))


def _described(name: str, thing: Any, called: Callable[..., Any] | None) -> Iterator[str]:
    if called is not None:
        yield f"```python\n{_call(name, called)}\n```\n"
    text = inspect.cleandoc(thing.__doc__ or "")
    head, *sections = re.split(r"^(Args|Returns|Raises):\n", text, flags=re.M)
    yield f"{escape(head.strip(), quote=False)}\n"
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        rows = re.findall(r"^    (\w[^:\n]*): (.*(?:\n {5,}.*)*)", body, flags=re.M)
        if title == "Args":
            yield "| argument | what it is |\n|---|---|"
            yield from (f"| `{key}` | {_line(value)} |" for key, value in rows)
            yield ""
        else:
            yield f"{title}: {_line(body)}\n"


def _call(name: str, called: Callable[..., Any]) -> str:
    """The call with defaults, without annotations."""
    parts, star = [], False
    for one in inspect.signature(called).parameters.values():
        if one.name in ("self", "cls"):
            continue
        if one.kind is one.KEYWORD_ONLY and not star:
            parts, star = [*parts, "*"], True
        default = "" if one.default is one.empty else f"={one.default!r}"
        parts.append(f"**{one.name}" if one.kind is one.VAR_KEYWORD else f"{one.name}{default}")
    return f"{name}({', '.join(parts)})"


def _line(text: str) -> str:
    return escape(" ".join(text.split()), quote=False).replace("|", "&#124;")
