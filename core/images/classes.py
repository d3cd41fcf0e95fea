"""Classes by name, wherever a person names one: `--class seven`, `sample.labels: [seven, 3]`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.errors import UserError
from core.similar import did_you_mean

NONE = -1  # means no class
SHOWN = 12  # names in an error


def class_indices(wanted: Iterable[int | str], names: Sequence[str], where: str) -> list[int]:
    """The place of each class in `names`; -1 stays -1.

    A class is meant by its name; `1` is the class called "1". Only where no class has a number for a name, a number is
    a place counted from 0.

    Raises:
        UserError: there is no such class; `where` names the setting.
    """
    places = {name: place for place, name in enumerate(names)}
    numbered = any(_is_number(name) for name in names)
    indices = []
    for one in wanted:
        text = str(one).strip()
        if text in places:
            indices.append(places[text])
        elif text == str(NONE):
            indices.append(NONE)
        elif not numbered and _is_number(text) and int(text) < len(names):
            indices.append(int(text))
        else:
            raise UserError(f"{where}: found {text!r}; {_allowed(text, names)}")
    return indices


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9


def _allowed(text: str, names: Sequence[str]) -> str:
    if not names:
        return "allowed: only -1: the model has no classes"
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"{did_you_mean(text, names)}allowed: {shown}, or -1 for none"
