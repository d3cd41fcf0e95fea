"""A proxy that breaks a share of the requests on their way to a server: 503, 429, reset, slow, truncated, altered,
lost answer.

    with GcsServer() as gcs, FaultyProxy(gcs.url, share=0.2, seed=1) as proxy:
        os.environ["STORAGE_EMULATOR_HOST"] = proxy.url

A lost answer is the nastiest: the server has done what was asked, and the client is told nothing.
"""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from unittest import mock
from urllib.parse import urlsplit

import tenacity.nap

from tests.fakes.closing import Closing

FAULTS = ("503", "429", "reset", "slow", "truncated", "lost answer")


class FaultyProxy(Closing):
    """One proxy on a free port of this machine, in threads of this process.

    Args:
        target: URL of the server behind it.
        share: of the requests that meet a fault, 0 to 1.
        seed: which ones, and which fault. Concurrent requests may change places.
        faults: the kinds that are drawn from.
        slow: seconds that a slow answer takes longer.
    """

    def __init__(
        self, target: str, *, share: float, seed: int = 0, faults: tuple[str, ...] = FAULTS, slow: float = 0.2
    ) -> None:
        self.share, self.faults, self.slow = share, faults, slow
        self.requests = self.broken = 0
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, urlsplit(target).netloc))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def draw(self) -> str:
        """The fault of the next request, or an empty string."""
        with self._lock:
            self.requests += 1
            if self._random.random() >= self.share:
                return ""
            self.broken += 1
            return self._random.choice(self.faults)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(proxy: FaultyProxy, netloc: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.draw()
            if fault in ("503", "429"):
                self._answer(int(fault), {"Content-Type": "application/json"}, b'{"error": {"message": "try later"}}')
                return
            if fault == "reset":
                self._reset()
                return
            if fault == "slow":
                time.sleep(proxy.slow)
            back = http.client.HTTPConnection(netloc, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            back.request(self.command, self.path, body or None, {**headers, "Host": self.headers["Host"]})
            reply = back.getresponse()
            content = reply.read()
            back.close()
            if fault == "lost answer":
                self._reset()
                return
            found = {name: value for name, value in reply.getheaders() if name.lower() not in _HOP}
            if "Location" in found:  # of a resumable upload: it must come back through here
                found["Location"] = found["Location"].replace(netloc, urlsplit(proxy.url).netloc)
            if fault == "altered" and content and self.command == "GET" and "octet" in found.get("Content-Type", ""):
                content = content[:-1] + bytes([content[-1] ^ 1])
            if fault == "truncated" and content:
                self._answer(reply.status, found, content[: len(content) // 2], states=len(content))
                self._reset()
                return
            states = int(reply.getheader("Content-Length") or 0) if self.command == "HEAD" else None
            self._answer(reply.status, found, content, states)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _forward  # noqa: N815  # names of the library

        def _answer(self, status: int, headers: dict[str, str], body: bytes, states: int | None = None) -> None:
            self.send_response_only(status)  # the server behind it says its own Date
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) if states is None else states))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
                self.wfile.flush()

        def _reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # RST, not FIN
            self.close_connection = True
            self.connection.close()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # of a connection that was reset on purpose
                pass

        def finish(self) -> None:
            try:
                super().finish()
            except OSError:
                pass

    return Handler


_HOP = ("content-length", "transfer-encoding", "connection", "host")


@contextmanager
def without_pauses() -> Iterator[None]:
    """Leaves out the pauses between tries, which are up to 16 s in gcsfs and 20 s around it; the tries stay."""
    import asyncio

    import gcsfs.retry

    async def at_once(seconds: float) -> None:
        await asyncio.sleep(0)

    with (
        mock.patch.object(gcsfs.retry, "asyncio", SimpleNamespace(sleep=at_once)),
        mock.patch.object(tenacity.nap, "time", SimpleNamespace(sleep=lambda seconds: None)),
    ):
        yield
