"""Names from outside, that were listed or read from a file, joined to a folder: inside it, or refused.

Storage, manifests and records of other people decide what a name is. `Path("models") / "/etc/passwd"` is
`/etc/passwd`; so nothing else joins a name that this code has not made itself (tests/test_architecture.py).
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import TypeVar

from core.errors import UserError
from core.schemes import is_remote

_DRIVE = re.compile(r"[A-Za-z]:")
_UNPRINTED = {"Cc", "Cs", "Zl", "Zp"}  # control characters, NUL among them; half characters; breaks of lines
F = TypeVar("F", str, Path)


def inside(folder: F, name: object, *, links: bool = False) -> F:
    """The file called `name` below `folder`, of the kind that `folder` is.

    Args:
        folder: a local folder or a remote prefix; it need not be there yet.
        name: relative, with `/` between its parts.
        links: local links may lead out of `folder`. Only for names of our own making, and for a person's own data,
            whose links are checked where they are listed (core/sources/listing.py).

    Raises:
        UserError: the name would lead out of `folder`, or is no plain name.
    """
    plain = relative(name, folder)
    joined = f"{str(folder).rstrip('/')}/{plain}"
    if isinstance(folder, str) and is_remote(folder):
        return folder.__class__(joined)
    if not links and not Path(os.path.realpath(joined)).is_relative_to(os.path.realpath(folder)):
        raise UserError(f"{folder}: refuses the name {_short(name)}: a link leads out of the folder")
    return folder.__class__(joined)


def relative(name: object, where: object) -> str:
    """`name` as it is, if it leads below any folder that it is joined to; `where` names its origin in errors.

    Raises:
        UserError: it is absolute, has a drive, a backslash, a control character, or a part that is empty, `.` or `..`.
    """
    if (
        not isinstance(name, str)
        or any(part in ("", ".", "..") for part in name.split("/"))
        or "\\" in name
        or _DRIVE.match(name)
        or any(unicodedata.category(character) in _UNPRINTED for character in name)
    ):
        raise UserError(f"{where}: refuses the name {_short(name)}: expected a relative name that stays inside")
    return name


def single(name: object, where: object) -> str:
    """`name` as it is, if it is a `relative` one of one part.

    Raises:
        UserError: it is not.
    """
    if "/" in (plain := relative(name, where)):
        raise UserError(f"{where}: refuses the name {_short(name)}: expected one without a slash")
    return plain


def _short(name: object) -> str:
    text = repr(name)
    return text if len(text) <= 100 else text[:97] + "..."
