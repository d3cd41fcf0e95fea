"""Content that states its own hash: JSON with its SHA-256 among its fields, and one hash for a folder of files.

A flipped bit in a description is another model that loads without an error: `sigma_data` 0.5 as 0.4 draws other
images. So what is described is hashed, and the description too. These are no signatures: see docs/threat-model.md.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import storage
from core.config import canonical_json
from core.errors import UserError
from core.names import inside

log = logging.getLogger(__name__)
OWN_HASH = "own_sha256"
FILES_HASH = "files_sha256"
"""The key of `files_sha256` in an artifact's metadata."""


def digest(value: object) -> str:
    """The SHA-256 of `value` as canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """`value` with the hash of all its other fields."""
    content = {key: item for key, item in value.items() if key != OWN_HASH}
    return {**content, OWN_HASH: digest(content)}


def unsealed(value: Mapping[str, Any], where: str | Path) -> dict[str, Any]:
    """`value` without its own hash. One written before there was any is taken, with a warning.

    Raises:
        UserError: the content is not what was written.
    """
    content = dict(value)
    stated = content.pop(OWN_HASH, None)
    if stated is None and not _renamed(content):
        log.warning("%s: states no hash of its own (an earlier version wrote it), so it is not verified", where)
    elif stated is None or stated != digest(content):
        raise UserError(f"{where}: damaged: its content does not match its own SHA-256 ({OWN_HASH}); copy it again")
    return content


def _renamed(content: Mapping[str, Any]) -> bool:
    """Whether a field is the hash of all others under another name: the damage is in the name."""
    return any(
        isinstance(stated, str)
        and len(stated) == 64
        and stated == digest({key: value for key, value in content.items() if key != name})
        for name, stated in content.items()
    )


def write_json(uri: str | Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object atomically, with its own hash."""
    storage.write_json(uri, sealed(value))


def read_json(uri: str | Path) -> dict[str, Any]:
    """The JSON object that `write_json` wrote, without its own hash.

    Raises:
        UserError: it is missing, no object, or not what was written.
    """
    record = storage.read_json(uri)
    if not isinstance(record, dict):
        raise UserError(f"{uri}: expected a JSON object, found {type(record).__name__}")
    try:
        return unsealed(record, uri)
    except (ValueError, RecursionError) as error:  # NaN, which JSON does not know and Python reads
        raise UserError(f"{uri}: not valid JSON: {error}") from None


def files_sha256(uri: str | Path) -> str:
    """One hash of a file, or of all files below a folder: their names and contents. Empty folders do not count."""
    if not storage.is_remote(uri) and Path(uri).is_file():
        return storage.sha256(uri)
    return digest({name: storage.sha256(inside(str(uri), name)) for name in storage.list_files(uri)})
