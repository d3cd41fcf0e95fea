"""The bucket as the folder that a container of a step sees."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from tests.fakes import s3


class Bucket:
    """Objects of the storage server, mirrored in the mounted folder."""

    scheme = "gs://"
    kept_back = ""
    """A file that is not uploaded."""

    def __init__(self, url: str, mount: str) -> None:
        self.url, self.mount = url, mount

    def local(self, uri: str) -> str:
        """Where an object is in the folder."""
        return uri.replace(self.scheme, self.mount)

    def upload(self, prefix: str) -> None:
        """Everything under a prefix of the mounted folder."""
        for path in sorted(p for p in Path(self.local(prefix)).rglob("*") if p.is_file() and p.name != self.kept_back):
            bucket, _, name = str(path).removeprefix(self.mount).partition("/")
            self._put(bucket, name, path.read_bytes())

    def download(self, uri: str) -> None:
        """The object `uri` and everything under it, where it is not in the folder yet."""
        if not uri.startswith(self.scheme):
            return
        bucket, _, name = uri.removeprefix(self.scheme).partition("/")
        for found in self._list(bucket, name):
            if found != name and not found.startswith(name.rstrip("/") + "/"):
                continue
            path = Path(self.mount, bucket, found)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._get(bucket, found))

    def read(self, uri: str) -> bytes:
        """The content of one object."""
        bucket, _, name = uri.removeprefix(self.scheme).partition("/")
        return self._get(bucket, name)

    def _get(self, bucket: str, name: str) -> bytes:
        return self._request(f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media")

    def _put(self, bucket: str, name: str, data: bytes) -> None:
        self._request(f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}", data)

    def _list(self, bucket: str, prefix: str) -> Iterator[str]:
        answer = json.loads(self._request(f"/storage/v1/b/{bucket}/o?prefix={quote(prefix, safe='')}"))
        yield from (item["name"] for item in answer.get("items", []))

    def _request(self, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(self.url + path, body), timeout=60) as answer:
            return bytes(answer.read())


class S3Bucket(Bucket):
    """The same with a store that speaks S3."""

    scheme = "s3://"

    def _get(self, bucket: str, name: str) -> bytes:
        return s3.request(self.url, f"{bucket}/{quote(name)}")

    def _put(self, bucket: str, name: str, data: bytes) -> None:
        s3.request(self.url, f"{bucket}/{quote(name)}", data)

    def _list(self, bucket: str, prefix: str) -> Iterator[str]:
        yield from s3.names(self.url, bucket, prefix)


class Mounted(Bucket):
    """A bucket that is really mounted: what is written there is in it."""

    def upload(self, prefix: str) -> None:
        """Nothing is left to do."""

    def download(self, uri: str) -> None:
        """Nothing is left to do."""
