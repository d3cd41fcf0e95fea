"""Text from models and files on a terminal: what would command it or reorder its lines is shown, not obeyed."""

from __future__ import annotations

import re
from typing import TextIO

# C0 and C1 controls and DEL, line and paragraph separators, marks that change the direction of writing, halves of
# surrogate pairs (which cannot be encoded).
_RANGES = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_COMMANDS = re.compile(f"[{_RANGES}]")
_COMMANDS_AND_SPACE = re.compile(f"[{_RANGES}\t\n]")


def printable(text: str, *, one_line: bool = False) -> str:
    r"""`text` with control characters as their escapes (`\x1b`, `\u202e`); `one_line`: ends of lines and tabs too."""
    return (_COMMANDS_AND_SPACE if one_line else _COMMANDS).sub(_shown, text)


def printable_json(text: str) -> str:
    """JSON text with control characters as JSON's escapes: the same value, which commands no terminal."""
    return _COMMANDS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _shown(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def say(text: object, *, lines: bool = False, to: TextIO | None = None) -> None:
    """Prints `text` on one line; with `lines` its own ends of lines and tabs are kept.

    Everything that may hold text from models, files or services is printed by this, or goes through `printable`.

    Args:
        text: what to print.
        lines: whether it may have several lines.
        to: a stream; None: stdout as it is now.
    """
    print(printable(str(text), one_line=not lines), file=to, flush=True)
