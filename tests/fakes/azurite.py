"""Azurite, Microsoft's own server of Azure's blobs, on this machine; `make azurite` installs it (needs npm).

with AzuriteServer() as azure:
    azure.create_bucket("models")
    os.environ.update(azure.environment)
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

PROGRAM = Path(sys.prefix) / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
LACKING = None if PROGRAM.exists() and shutil.which("node") else "needs Azurite: `make azurite`"
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # public, documented


class AzuriteServer:
    """One server with its blobs in memory; it verifies signatures.

    Raises:
        RuntimeError: it did not answer in time.
    """

    def __init__(self, *, timeout: float = 90.0) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            ["node", str(PROGRAM), "--inMemoryPersistence", "--disableTelemetry", "--silent", "--skipApiVersionCheck",
             "--blobHost", "127.0.0.1", "--blobPort", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + timeout
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.close()
                raise RuntimeError(f"Azurite did not answer on {self.url} within {timeout} s")
            time.sleep(0.1)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send adlfs here."""
        return environment(self.url)

    def create_bucket(self, name: str) -> None:
        """Creates an empty container."""
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient.from_connection_string(*self.environment.values()) as client:
            client.create_container(name)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url, timeout=2):
                return True
        except urllib.error.HTTPError:
            return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def __enter__(self) -> AzuriteServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def environment(url: str) -> dict[str, str]:
    """Variables that send adlfs to a server."""
    parts = {"DefaultEndpointsProtocol": "http", "AccountName": _ACCOUNT, "AccountKey": _KEY,
             "BlobEndpoint": f"{url}/{_ACCOUNT}"}  # fmt: skip
    return {"AZURE_STORAGE_CONNECTION_STRING": ";".join(f"{name}={value}" for name, value in parts.items())}
