"""A small file changed by many: read, changed and replaced as one, so that nobody's change is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.storage import files, generations, locks

PATIENCE = 60.0  # seconds; who changes a file has it for a moment


def exchange(uri: str, change: Callable[[bytes | None], bytes]) -> None:
    """Replaces the content of `uri` by what `change` makes of it (of None, if it is not there).

    On disk under a lock, in a bucket by the object's generation or ETag, where `change` may be called again with what
    another one wrote meanwhile; what it returns must differ from what others write.

    Raises:
        StorageError: it cannot be read or written.
    """
    if files.is_remote(uri):
        while True:
            now = generations.look(uri)
            data = change(now.data if now else None)
            if generations.replace(uri, data, now.generation if now else generations.ABSENT) is not None:
                return
    path = Path(uri)
    with locks.held(path.with_name(f".{path.name}.lock"), uri, patience=PATIENCE):
        files.write_bytes(path, change(path.read_bytes() if path.exists() else None))
