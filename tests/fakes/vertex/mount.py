"""The bucket as the folder that a container of a step sees."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote


class Bucket:
    """Objects of the storage server, mirrored in the mounted folder."""

    def __init__(self, url: str, mount: str) -> None:
        self.url, self.mount = url, mount

    def upload(self, prefix: str) -> None:
        """Everything under a `gs://` prefix of the mounted folder."""
        folder = Path(prefix.replace("gs://", self.mount))
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            bucket, _, name = str(path).removeprefix(self.mount).partition("/")
            self._request(
                f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}", path.read_bytes()
            )

    def download(self, uri: str) -> None:
        """The object `uri` and everything under it, where it is not in the folder yet."""
        if not uri.startswith("gs://"):
            return
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        for found in self._list(bucket, name):
            if found != name and not found.startswith(name.rstrip("/") + "/"):
                continue
            path = Path(self.mount, bucket, found)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._request(f"/storage/v1/b/{bucket}/o/{quote(found, safe='')}?alt=media"))

    def read(self, uri: str) -> bytes:
        """The content of one object."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        return self._request(f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media")

    def _list(self, bucket: str, prefix: str) -> Iterator[str]:
        answer = json.loads(self._request(f"/storage/v1/b/{bucket}/o?prefix={quote(prefix, safe='')}"))
        yield from (item["name"] for item in answer.get("items", []))

    def _request(self, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(self.url + path, body), timeout=60) as answer:
            return bytes(answer.read())


class Mounted(Bucket):
    """A bucket that is really mounted: what is written there is in it."""

    def upload(self, prefix: str) -> None:
        """Nothing is left to do."""

    def download(self, uri: str) -> None:
        """Nothing is left to do."""
