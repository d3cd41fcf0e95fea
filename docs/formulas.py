"""Formulas as MathML, which browsers draw themselves: no script, nothing loaded. For mkdocs.yml."""

from __future__ import annotations

from typing import Any

from latex2mathml.converter import convert


def inline(source: str, *_: Any, **__: Any) -> str:
    """`#!math x` inside a line."""
    return str(convert(source))


def block(source: str, *_: Any, **__: Any) -> str:
    """A fenced block of the language `math`; each paragraph is a formula."""
    parts = [part for part in source.split("\n\n") if part.strip()]
    return "".join(f'<p class="formula">{convert(part.strip(), display="block")}</p>' for part in parts)
