"""Around every request: it is counted and timed, and leaves one line of JSON in the log."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import Metrics
from serving.watch import Watch

log = logging.getLogger("serving.requests")
QUIET = ("/metrics", "/v2/health/live", "/v2/health/ready")  # asked every few seconds; logged when they fail


class Observed:
    """The middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics, watch: Watch, quiet: tuple[str, ...] = QUIET) -> None:
        self._app, self._metrics, self._watch, self._quiet = app, metrics, watch, quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def said(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, said)
        finally:
            self._note(scope, status or 500, time.monotonic() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if scope["path"] not in self._quiet:
            self._watch.asked(route, status, seconds)
        if status >= 400 or scope["path"] not in self._quiet:
            facts = {"method": scope["method"], "path": scope["path"], "status": status, "seconds": round(seconds, 4)}
            log.log(logging.ERROR if status >= 500 else logging.INFO, "request", extra={"facts": facts})


class JsonLines(logging.Formatter):
    """A record as one line of JSON, with the keys that Google Cloud's logging reads."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "severity": record.levelname,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_in_json() -> None:
    """Sends the service's log to stderr, and uvicorn's with it."""
    stream = logging.StreamHandler()
    stream.setFormatter(JsonLines())
    for name in ("serving", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [stream], False
        logger.setLevel(logging.INFO)
