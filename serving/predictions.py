"""`{"instances": [...], "parameters": {...}}` to `{"predictions": [...]}`: Vertex AI's containers and KServe's V1.

https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol

An instance is what /generate takes; `parameters` are laid under each. A prediction is `{"seed", "samples"}`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from core import jsontext
from core.config import validate
from core.errors import UserError
from serving import answers
from serving.asks import ASKS, Ask
from serving.errors import LARGEST, LargeError
from serving.orders import Order
from serving.service import Service


def routes(service: Service) -> APIRouter:
    """Vertex AI's two routes, and KServe's."""
    router = APIRouter()
    options = service.options

    async def predict(request: Request) -> Response:
        asks = _asks(await body(request), ASKS[service.card.modality], options.max_count)
        orders = await draw_all(service, asks)
        made = [await answers.answer(ask, order) for ask, order in zip(asks, orders, strict=True)]
        return limited({"predictions": made})

    async def health() -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    async def listed() -> dict[str, Any]:
        return {"models": [service.card.name]}

    async def ready(name: str) -> Response:
        known(service, name)
        return JSONResponse({"name": name, "ready": service.ready}, 200 if service.ready else 503)

    async def predict_v1(name: str, request: Request) -> Response:
        known(service, name)
        return await predict(request)

    router.add_api_route(options.predict_route, predict, methods=["POST"], summary="Vertex AI: predictions")
    router.add_api_route(options.health_route, health, summary="Vertex AI: 200 when a model is warm")
    router.add_api_route("/v1/models", listed, summary="KServe V1: models")
    router.add_api_route("/v1/models/{name}:predict", predict_v1, methods=["POST"], summary="KServe V1: predictions")
    router.add_api_route("/v1/models/{name}", ready, summary="KServe V1: whether a model is ready")
    return router


async def body(request: Request) -> dict[str, Any]:
    """The JSON object of a request; a UserError if it is something else."""
    value = jsontext.parse((await request.body()).decode("utf-8", "replace"), "body")
    if not isinstance(value, dict):
        raise UserError("body: expected a JSON object")
    return value


def known(service: Service, name: str) -> None:
    """Raises a 404 for a model that is not the one in service."""
    from starlette.exceptions import HTTPException

    if name != service.card.name:
        raise HTTPException(404, f"model {name}: not served here; there is {service.card.name}")


async def draw_all(service: Service, asks: Sequence[Ask]) -> list[Order]:
    """The finished orders; when one fails, the others are taken back."""
    orders = service.submit(asks)
    try:
        await asyncio.gather(*(service.finished(order) for order in orders))
    finally:
        for order in orders:
            order.give_up()
    return orders


def limited(value: Mapping[str, Any]) -> Response:
    """`value` as an answer; LargeError beyond the limit that Vertex AI sets."""
    data = json.dumps(value).encode()
    if len(data) > LARGEST:
        raise LargeError(f"the answer has {len(data)} bytes; allowed are {LARGEST}: ask for fewer samples, or for png")
    return Response(data, media_type="application/json")


def _asks(value: Mapping[str, Any], kind: type[Ask], most: int) -> list[Ask]:
    instances, parameters = value.get("instances"), value.get("parameters") or {}
    if not isinstance(instances, list) or not instances or not isinstance(parameters, dict):
        raise UserError("body: expected instances: a list, not empty, and parameters: an object")
    if len(instances) > most:
        raise UserError(f"instances: found {len(instances)}; allowed: 1 to {most}")
    if not all(isinstance(one, dict) for one in instances):
        raise UserError('instances: expected objects, such as {"seed": 1}')
    return [validate(kind, {**parameters, **one}, f"instances[{i}]") for i, one in enumerate(instances)]
