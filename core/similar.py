"""What a person meant by a name that is not there."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(found: str, allowed: Iterable[str]) -> str:
    """`did you mean 'batch_size'? ` for the name in `allowed` that is most like `found`; empty if none is.

    A name is like another in any case, with other signs between its words, as its beginning, and as the end of a dotted
    one. No number is like another, and a name that is allowed is not mistaken.
    """
    names, asked = list(allowed), _plain(found)
    known = {_plain(name): name for name in names}
    for name in names:
        known.setdefault(_plain(name.rpartition(".")[2]), name)
    if asked.isdecimal() or found in names:
        return ""
    close = get_close_matches(asked, known, 1, cutoff=0.65)
    close = close or [name for name in known if len(asked) > 2 and name.startswith(asked)]
    return f"did you mean {known[close[0]]!r}? " if close else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
