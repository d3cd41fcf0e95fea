"""Files here and in buckets, checkpoints and model folders. What is published is all there or absent."""

from core.storage.drives import sync_folder
from core.storage.files import (
    CHUNK,
    atomic_folder,
    copy_tree,
    create,
    exists,
    is_remote,
    join,
    list_files,
    open_read,
    read_bytes,
    read_json,
    remove,
    sha256,
    size,
    write_bytes,
    write_json,
)

__all__ = [
    "CHUNK",
    "atomic_folder",
    "copy_tree",
    "create",
    "exists",
    "is_remote",
    "join",
    "list_files",
    "open_read",
    "read_bytes",
    "read_json",
    "remove",
    "sha256",
    "size",
    "sync_folder",
    "write_bytes",
    "write_json",
]
