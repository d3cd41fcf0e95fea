"""What a client may not do: send too much, or too slowly, or have another site's page ask on behalf of its reader."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import h11
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.errors import LARGEST, ForeignError, LargeError, response

HARMLESS = ("GET", "HEAD", "OPTIONS")


class Limited:
    """The middleware: bodies of at most LARGEST bytes, no orders from pages of other sites."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["method"] not in HARMLESS and is_foreign(headers):
            await response(ForeignError("pages of other sites may not ask"))(scope, receive, send)
            return
        announced, size = headers.get("content-length", ""), 0
        too_large = announced.isdecimal() and int(announced) > LARGEST

        async def heard() -> Message:
            nonlocal size
            if too_large:  # before it is sent
                raise LargeError(f"body: more than {LARGEST} bytes")
            message = await receive()
            size += len(message.get("body", b""))
            if size > LARGEST:
                raise LargeError(f"body: more than {LARGEST} bytes")
            return message

        await self._app(scope, heard, send)


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a browser sends this for a page of another site. Programs send neither of these headers.

    https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site not in ("same-origin", "none")
    try:
        return origin is not None and urlsplit(origin).netloc != headers.get("host")
    except ValueError:
        return True


class Punctual(H11Protocol):
    """A connection that ends when a request has not arrived within `seconds`, or an answer is not read for so long.

    uvicorn itself ends those that are idle after a request, but waits for ever for the first, and for the rest of any.
    """

    seconds = 60.0
    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    @classmethod
    def within(cls, seconds: float) -> type[Punctual]:
        """The class with other `seconds`: uvicorn makes the connections itself."""
        return type("Punctual", (cls,), {"seconds": seconds})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _end(self._unread)
        self._unread = None

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._late, self._unread):
            _end(timer)
        self._late = self._unread = None
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Begins to wait for a request or what is left of one, or ends it."""
        idle = self.timeout_keep_alive_task is not None  # uvicorn's own timer runs
        if idle or self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            _end(self._late)
            self._late = None
        elif self._late is None:
            self._late = self.loop.call_later(self.seconds, self.transport.abort)


def _end(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
