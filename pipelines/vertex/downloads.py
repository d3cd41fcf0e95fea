"""Copies out of Cloud Storage: picked up where an earlier try stopped, and verified by the checksum the store keeps."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.names import inside
from core.storage import CHUNK, confirm
from pipelines.vertex.client import Vertex, one_line


def fetch_tree(vertex: Vertex, uri: str, target: Path, name: str = "") -> int:
    """Copies the object `uri`, or everything below it, into the folder `target`; returns the number of files.

    Args:
        vertex: whose storage client is used.
        uri: `gs://bucket/path`.
        target: folder; files that are there already and whole are left alone.
        name: what a single object is called there; empty: its own name.

    Raises:
        UserError: nothing is there, a name leads out of `target`, or a file does not arrive whole.
    """
    bucket, _, prefix = uri.removeprefix("gs://").rstrip("/").partition("/")
    own_name = prefix.rpartition("/")[2]
    with one_line(uri):
        blobs = [
            blob
            for blob in vertex.buckets.list_blobs(vertex.bucket(bucket), prefix=prefix, timeout=60)
            if (blob.name == prefix or blob.name.startswith(f"{prefix}/")) and not blob.name.endswith("/")
        ]  # that would be a console's mark of a folder
    if not blobs:
        raise UserError(f"{uri}: nothing there")
    places = [
        inside(target, blob.name.removeprefix(f"{prefix}/") if blob.name != prefix else name or own_name)
        for blob in blobs
    ]
    for blob, path in zip(blobs, places, strict=True):  # none is copied if one is refused
        fetch(blob, path)
    return len(blobs)


def fetch(blob: Any, path: Path) -> None:
    """Copies one object to `path`. What is missing of an interrupted copy is read; the rest is kept.

    Raises:
        UserError: the content is not what the store says it is, even after reading it all again.
    """
    if path.is_file() and path.stat().st_size == blob.size and crc32c(path) == blob.crc32c:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # The generation is in the name: the rest of another version must not be appended to the beginning of this one.
    part = path.with_name(f".{path.name}.{blob.generation}.part")
    with one_line(f"gs://{blob.bucket.name}/{blob.name}"):
        for _ in range(2):
            have = part.stat().st_size if part.exists() else 0
            if have > (blob.size or 0):
                part.unlink()
                have = 0
            if have < (blob.size or 0) or not part.exists():
                with part.open("ab") as sink:
                    if blob.size:
                        blob.download_to_file(sink, start=have, raw_download=True, checksum=None, timeout=120)
            if crc32c(part) == blob.crc32c:
                part.replace(path)
                confirm(path)
                return
            part.unlink()
    raise UserError(f"gs://{blob.bucket.name}/{blob.name}: did not arrive whole: its CRC32C is not {blob.crc32c}")


def crc32c(path: Path) -> str:
    """The checksum of a file as Cloud Storage writes it: CRC-32C, big-endian, base64."""
    import google_crc32c

    digest: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return base64.b64encode(digest.digest()).decode()
