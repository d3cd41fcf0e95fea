"""The application: all routes around one service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import errors, open_inference, plain, predictions
from serving.limits import Limited
from serving.metrics import Metrics
from serving.observing import QUIET, Observed
from serving.service import Service

DESCRIPTION = """Samples of one model. The same seed gives the same sample, alone or under load, here and by
`textdiffusion generate`."""


def make_app(service: Service, give_up: Callable[[], None]) -> FastAPI:
    """The application; `give_up` is called if the model cannot be served."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.run(give_up)
        yield
        await service.close()

    app = FastAPI(title="TextDiffusion", version=service.card.version, description=DESCRIPTION, lifespan=lifespan,
                  docs_url=None, redoc_url=None)  # those pages are scripts of other hosts  # fmt: skip
    app.add_middleware(HeadAsGet)
    app.add_middleware(Limited)
    app.add_middleware(
        Observed, metrics=service.metrics, watch=service.watch, quiet=(*QUIET, service.options.health_route)
    )
    errors.install(app)
    for part in (plain, predictions, open_inference):
        app.include_router(part.routes(service))

    async def about() -> dict[str, Any]:
        card = service.card
        return {"model": card.name, "version": card.version, "modality": card.modality, "ready": service.ready,
                "classes": list(card.classes), "sample": dict(card.manner), "threads": service.threads}  # fmt: skip

    async def metrics() -> Response:
        service.measure()
        return Response(service.metrics.text(), media_type=Metrics.CONTENT_TYPE)

    app.add_api_route("/", about, summary="The model in service")
    app.add_api_route("/metrics", metrics, summary="For Prometheus")
    return app


class HeadAsGet:
    """The middleware: what answers GET answers HEAD, as RFC 9110 (section 9.1) asks; the server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = {**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope
        try:
            await self._app(asked, receive, send)
        finally:
            scope.setdefault("route", asked.get("route"))  # which the log and the counts name
