"""A server of storage in a process of its own, on a free port of this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

from tests.fakes.closing import Closing


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


_CLIENTS = {"gcsfs": "GCSFileSystem", "s3fs": "S3FileSystem", "adlfs": "AzureBlobFileSystem"}


def _forget_others() -> None:
    """fsspec's libraries keep one file system for all servers that the environment ever named."""
    for library, name in _CLIENTS.items():
        if library in sys.modules:
            getattr(sys.modules[library], name).clear_instance_cache()


class StoreServer(Closing):
    """Runs `command` until it is closed; it is there once `probe` is answered.

    Args:
        command: of the server.
        port: that it listens on.
        timeout: seconds to wait until it answers.

    Raises:
        RuntimeError: it did not answer in time.
    """

    name = ""
    probe = "/"
    refuses_strangers = False  # its first answer, then, is an error

    def __init__(self, command: Sequence[str], port: int, timeout: float) -> None:
        _forget_others()
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + timeout
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.close()
                raise RuntimeError(f"{self.name} did not answer on {self.url} within {timeout} s")
            time.sleep(0.05)

    def close(self) -> None:
        _forget_others()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}{self.probe}", timeout=2):
                return True
        except urllib.error.HTTPError:
            return self.refuses_strangers
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
