"""An S3 server on this machine: moto's, in a process of its own.

with S3Server() as s3:
    s3.create_bucket("models")
    os.environ.update(s3.environment)
"""

from __future__ import annotations

import html
import re
import sys
import urllib.request
from urllib.parse import quote

from tests.fakes.store import StoreServer, free_port

_SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


class S3Server(StoreServer):
    """One server with its objects in memory; whatever credentials it is sent, it lets in.

    Raises:
        RuntimeError: it did not answer in time.
    """

    scheme, name, probe = "s3://", "moto", "/moto-api/"

    def __init__(self, *, timeout: float = 90.0) -> None:
        port = free_port()
        super().__init__([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, timeout)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send s3fs here."""
        return environment(self.url)

    def create_bucket(self, name: str) -> None:
        """Creates an empty bucket."""
        request(self.url, name, b"")

    def put(self, bucket: str, name: str, data: bytes) -> None:
        """Writes an object."""
        request(self.url, f"{bucket}/{quote(name)}", data)

    def get(self, bucket: str, name: str) -> bytes:
        """The content of an object."""
        return request(self.url, f"{bucket}/{quote(name)}")

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        """Names of the objects under a prefix, sorted."""
        return names(self.url, bucket, prefix)


def environment(url: str) -> dict[str, str]:
    """Variables that send s3fs to a server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def request(url: str, path: str, data: bytes | None = None) -> bytes:
    """PUT where there are data, else GET; moto's server does not verify the signature."""
    asked = urllib.request.Request(f"{url}/{path}", data, method="GET" if data is None else "PUT")
    asked.add_header("Authorization", _SIGNED)
    asked.add_header("Content-Type", "application/octet-stream")
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return bytes(answer.read())


def names(url: str, bucket: str, prefix: str) -> list[str]:
    """Names of the objects under a prefix, sorted."""
    found, after = [], ""
    while True:
        more = f"&start-after={quote(after, safe='')}" if after else ""
        page = request(url, f"{bucket}?list-type=2&prefix={quote(prefix, safe='')}{more}").decode()
        found += [html.unescape(name) for name in re.findall(r"<Key>(.*?)</Key>", page)]
        if "<IsTruncated>true" not in page:
            return sorted(found)
        after = found[-1]
