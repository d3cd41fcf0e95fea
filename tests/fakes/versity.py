"""Versity's S3 Gateway over a folder of this machine, a second server of S3's language beside moto's; `make versitygw`
builds it (needs Go).

with VersityServer() as s3:
    s3.create_bucket("models")
    os.environ.update(s3.environment)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.fakes import s3
from tests.fakes.store import StoreServer, free_port

PROGRAM = Path(sys.prefix) / "bin" / "versitygw"
LACKING = None if PROGRAM.exists() else "needs Versity's S3 Gateway: `make versitygw`"


class VersityServer(StoreServer):
    """One server with its objects in files; it verifies signatures.

    Raises:
        RuntimeError: it did not answer in time.
    """

    scheme, name, refuses_strangers = "s3://", "versitygw", True

    def __init__(self, *, timeout: float = 90.0) -> None:
        port, self._folder = free_port(), tempfile.TemporaryDirectory(prefix="versitygw-")
        keys = s3.environment("")
        root = ["--access", keys["AWS_ACCESS_KEY_ID"], "--secret", keys["AWS_SECRET_ACCESS_KEY"]]
        command = [str(PROGRAM), "--port", f"127.0.0.1:{port}", *root, "posix", self._folder.name]
        super().__init__(command, port, timeout)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send s3fs here."""
        return s3.environment(self.url)

    def create_bucket(self, name: str) -> None:
        """Creates an empty bucket."""
        import botocore.session

        keys = self.environment
        client = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.url,
            region_name=keys["AWS_DEFAULT_REGION"],
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=name)

    def close(self) -> None:
        super().close()
        self._folder.cleanup()
