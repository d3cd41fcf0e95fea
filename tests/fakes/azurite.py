"""Azurite, Microsoft's own server of Azure's blobs, on this machine; `make azurite` installs it (needs npm).

with AzuriteServer() as azure:
    azure.create_bucket("models")
    os.environ.update(azure.environment)
"""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.fakes.store import StoreServer, free_port

PROGRAM = Path(sys.prefix) / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
LACKING = None if PROGRAM.exists() and shutil.which("node") else "needs Azurite: `make azurite`"
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # public, documented


class AzuriteServer(StoreServer):
    """One server with its blobs in memory; it verifies signatures.

    Raises:
        RuntimeError: it did not answer in time.
    """

    scheme, name, refuses_strangers = "abfs://", "Azurite", True

    def __init__(self, *, timeout: float = 90.0) -> None:
        port = free_port()
        command = ["node", str(PROGRAM), "--inMemoryPersistence", "--disableTelemetry", "--silent",
                   "--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", str(port)]  # fmt: skip
        super().__init__(command, port, timeout)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send adlfs here."""
        return environment(self.url)

    def signed(self, name: str, *, permission: str, hours: float = 1) -> str:
        """A connection string that has no key, but a shared access signature of a container."""
        from azure.storage.blob import generate_container_sas

        expiry = datetime.now(UTC) + timedelta(hours=hours)
        token = generate_container_sas(_ACCOUNT, name, account_key=_KEY, permission=permission, expiry=expiry)
        return f"BlobEndpoint={self.url}/{_ACCOUNT};SharedAccessSignature={token}"

    def create_bucket(self, name: str) -> None:
        """Creates an empty container."""
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient.from_connection_string(*self.environment.values()) as client:
            client.create_container(name)


def environment(url: str) -> dict[str, str]:
    """Variables that send adlfs to a server."""
    parts = {"DefaultEndpointsProtocol": "http", "AccountName": _ACCOUNT, "AccountKey": _KEY,
             "BlobEndpoint": f"{url}/{_ACCOUNT}"}  # fmt: skip
    return {"AZURE_STORAGE_CONNECTION_STRING": ";".join(f"{name}={value}" for name, value in parts.items())}
