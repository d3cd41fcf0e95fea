"""Which files of a folder or prefix are data, and which are left out and why.

Links are followed inside the folder only, and a folder is read once, so that no loop of links is endless and nothing
outside what a person named is read. Hidden files are no data: `.DS_Store`, `.ipynb_checkpoints` with its copies.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from core import storage
from core.names import inside

HIDDEN = "hidden"
LINK_OUT, LINK_AGAIN, LINK_BROKEN = "links out of the folder", "links to a folder that is read already", "broken links"
OF_SYSTEMS = {"__macosx", "thumbs.db", "desktop.ini", "icon\r", "$recycle.bin"}


@dataclass
class Listing:
    """Names below a root, with `/` between their parts, sorted."""

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)  # local ones; a bucket has none
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (name, reason)


def listing(root: str | Path) -> Listing:
    """The files below a local folder or a remote prefix; empty if there is none."""
    names = Listing()
    if storage.is_remote(root):
        for name in storage.list_files(root):
            if is_hidden(name):
                names.skipped.append((name, HIDDEN))
            elif not name.endswith("/"):
                names.files.append(name)
        return names
    base = os.path.realpath(root)
    seen = {base}
    later = list(_walk(Path(base), "", base, seen, names))  # links wait until every folder was read by its own name
    while later:
        name, target = later.pop(0)
        if target in seen:
            names.skipped.append((name, LINK_AGAIN))
            continue
        seen.add(target)
        names.folders.append(name)
        later += _walk(Path(target), f"{name}/", base, seen, names)
    names.files.sort()
    names.folders.sort()
    names.skipped.sort()
    return names


def _walk(folder: Path, prefix: str, base: str, seen: set[str], names: Listing) -> Iterator[tuple[str, str]]:
    """Adds what is in `folder` to `found`; yields (name, real path) of links to folders."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        names.skipped.append((prefix.rstrip("/") or ".", f"not readable ({error.strerror})"))
        return
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if is_hidden(entry.name):
            names.skipped.append((name, HIDDEN))
        elif entry.is_symlink():
            target = os.path.realpath(entry.path)
            if not Path(target).is_relative_to(base):
                names.skipped.append((name, LINK_OUT))
            elif os.path.isdir(target):
                yield name, target
            elif os.path.isfile(target):
                names.files.append(name)
            else:
                names.skipped.append((name, LINK_BROKEN))
        elif entry.is_dir():
            seen.add(os.path.realpath(entry.path))
            names.folders.append(name)
            yield from _walk(inside(folder, entry.name, links=True), f"{name}/", base, seen, names)
        elif entry.is_file():
            names.files.append(name)


def is_hidden(name: str) -> bool:
    """Whether a part of `name` begins with a dot, or is what an operating system leaves in folders."""
    return any(part.startswith(".") or part.lower() in OF_SYSTEMS for part in name.split("/"))
