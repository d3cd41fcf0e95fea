"""The plain interface: /generate, and /generate/stream, in which a sample is seen to come out of noise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from serving import answers
from serving.asks import ASKS, Ask
from serving.errors import STATUS, status_of
from serving.orders import Order
from serving.service import Service

FAILED: dict[int | str, dict[str, Any]] = {
    status: {"description": "`error` says why"} for status in sorted({413, *STATUS.values()})
}


class Sample(BaseModel):
    """One sample: a text, or an image as `png` in base64 or as `array`."""

    index: int
    label: str | None = Field(None, alias="class")
    png: str | None = None
    array: list[Any] | None = None
    text: str | None = None


class Generated(BaseModel):
    """The samples of a request, and the model that drew them."""

    model: str
    version: str
    weights_sha256: str
    seed: int
    samples: list[Sample]


def routes(service: Service) -> APIRouter:
    """The routes, with the request's schema as the model's modality has it."""
    kind = ASKS[service.card.modality]
    router = APIRouter()

    async def generate(ask: Ask) -> JSONResponse:
        order = await service.draw(ask)
        return JSONResponse({**answers.model(order), **await answers.answer(ask, order)})

    async def stream(ask: Ask) -> StreamingResponse:
        (order,) = service.submit([ask], watched=True)
        return StreamingResponse(_events(service, ask, order), media_type="text/event-stream", headers=NO_CACHE)

    generate.__annotations__["ask"] = stream.__annotations__["ask"] = kind
    router.add_api_route(
        "/generate", generate, methods=["POST"], response_model=Generated, responses=FAILED, summary="Samples"
    )
    router.add_api_route(
        "/generate/stream", stream, methods=["POST"], responses={200: {"content": {"text/event-stream": {}}}, **FAILED},
        response_class=StreamingResponse,
        summary="Samples as server-sent events: `step` for each state shown, then `done` or `error`",
    )  # fmt: skip
    return router


NO_CACHE = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


async def _events(service: Service, ask: Ask, order: Order) -> AsyncIterator[bytes]:
    waiting = asyncio.ensure_future(service.finished(order))
    try:
        while not waiting.done():
            frame = asyncio.ensure_future(order.frames.get())
            await asyncio.wait({frame, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if frame.done():
                yield await _step(ask, order, frame.result())
            else:
                frame.cancel()
        while not order.frames.empty():
            yield await _step(ask, order, order.frames.get_nowait())
        try:
            await waiting
        except Exception as error:
            yield _event("error", {"error": str(error), "status": status_of(error)})
        else:
            yield _event("done", {**answers.model(order), **await answers.answer(ask, order)})
    finally:  # also when the reader is gone
        waiting.cancel()
        order.give_up()


async def _step(ask: Ask, order: Order, frame: dict[str, Any]) -> bytes:
    state = frame.pop("state")
    return _event("step", {**frame, **await asyncio.to_thread(answers.sample, ask, order, frame["index"], state)})


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
