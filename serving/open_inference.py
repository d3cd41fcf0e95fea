"""The Open Inference Protocol, KServe's V2, over HTTP and JSON.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md

Rows of the input tensors are samples. Images take `class` and `seed`, and give `images` UINT8 [N, H, W] or
[N, H, W, 3]; texts take `prompt` and `seed`, and give `text`. Both give the `seed` of each row. `parameters` are what
/generate takes besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from core.config import validate
from core.errors import UserError
from serving.asks import ASKS, Ask
from serving.card import ModelCard
from serving.orders import Order
from serving.predictions import body, draw_all, known, limited
from serving.service import Service

INPUTS: Mapping[str, dict[str, tuple[str, ...]]] = {"images": {"class": ("BYTES", "INT64"), "seed": ("INT64",)},
          "text": {"prompt": ("BYTES",), "seed": ("INT64",)}}  # fmt: skip


def routes(service: Service) -> APIRouter:
    """Health, metadata and inference, with and without a version in the path."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    async def server() -> dict[str, Any]:
        return {"name": "textdiffusion", "version": "2", "extensions": []}

    async def live() -> dict[str, Any]:
        return {"live": True}

    async def ready() -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    async def model_ready(name: str, version: str | None = None) -> Response:
        _known(service, name, version)
        return JSONResponse({"name": name, "ready": service.ready}, 200 if service.ready else 503)

    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        _known(service, name, version)
        return _metadata(service.card)

    async def infer(name: str, request: Request, version: str | None = None) -> Response:
        _known(service, name, version)
        return await _infer(service, await body(request))

    for path in ("/models/{name}", "/models/{name}/versions/{version}"):
        router.add_api_route(path, metadata, summary="Inputs and outputs of a model")
        router.add_api_route(f"{path}/ready", model_ready, summary="Whether a model is ready")
        router.add_api_route(f"{path}/infer", infer, methods=["POST"], summary="Samples as tensors")
    router.add_api_route("", server, summary="The server")
    router.add_api_route("/health/live", live, summary="Whether the server answers")
    router.add_api_route("/health/ready", ready, summary="Whether a model is warm")
    return router


def _known(service: Service, name: str, version: str | None) -> None:
    known(service, name)
    if version is not None and version != service.card.version:
        raise UserError(f"version {version}: not in service; {service.card.version} is")


def _metadata(card: ModelCard) -> dict[str, Any]:
    inputs = [{"name": name, "datatype": kinds[0], "shape": [-1]} for name, kinds in INPUTS[card.modality].items()]
    if card.modality == "images":
        made = {"name": "images", "datatype": "UINT8", "shape": [-1, *card.shape]}
    else:
        made = {"name": "text", "datatype": "BYTES", "shape": [-1]}
    outputs = [made, {"name": "seed", "datatype": "INT64", "shape": [-1]}]
    return {"name": card.name, "versions": [card.version], "platform": "textdiffusion_pytorch",
            "inputs": inputs, "outputs": outputs}  # fmt: skip


async def _infer(service: Service, asked: Mapping[str, Any]) -> Response:
    asks = _asks(asked, service)
    orders = await draw_all(service, asks)
    card: ModelCard = orders[0].card
    outputs = [_made(card, orders), _tensor("seed", "INT64", [len(orders)], [order.seed for order in orders])]
    wanted = asked.get("outputs")
    if isinstance(wanted, list) and wanted:
        names = [one.get("name") if isinstance(one, dict) else None for one in wanted]
        for name in names:
            if name not in [output["name"] for output in outputs]:
                raise UserError(f"outputs: found {name!r}; allowed: {outputs[0]['name']}, seed")
        outputs = [output for output in outputs if output["name"] in names]
    told = {"id": asked["id"]} if isinstance(asked.get("id"), str) else {}
    return limited({"model_name": card.name, "model_version": card.version, **told, "outputs": outputs})


def _made(card: ModelCard, orders: list[Order]) -> dict[str, Any]:
    if card.modality == "text":
        return _tensor("text", "BYTES", [len(orders)], [order.samples[0] for order in orders])
    images = np.stack([order.samples[0] for order in orders])
    return _tensor("images", "UINT8", list(images.shape), images.ravel().tolist())


def _tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def _asks(asked: Mapping[str, Any], service: Service) -> list[Ask]:
    """One ask a row of the input tensors.

    Raises:
        UserError: tensors are missing, unknown, or not of one length.
    """
    allowed, tensors, parameters = INPUTS[service.card.modality], asked.get("inputs"), asked.get("parameters") or {}
    if not isinstance(tensors, list) or not tensors or not isinstance(parameters, dict):
        raise UserError(f"body: expected inputs: a list of tensors ({', '.join(allowed)}), and parameters: an object")
    columns: dict[str, list[Any]] = {}
    for tensor in tensors:
        name = str(tensor.get("name")) if isinstance(tensor, dict) else ""
        if name not in allowed:
            raise UserError(f"inputs: found {name!r}; allowed: {', '.join(allowed)}")
        if name in columns:
            raise UserError(f"inputs.{name}: found twice; allowed: once")
        data = tensor.get("data")
        if tensor.get("datatype") not in allowed[name] or not isinstance(data, list):
            raise UserError(f"inputs.{name}: expected datatype {' or '.join(allowed[name])}, and data: a list")
        if tensor.get("shape") not in ([len(data)], [len(data), 1]):
            raise UserError(f"inputs.{name}: found shape {tensor.get('shape')!r} for {len(data)} values; one a row")
        columns[name] = data
    if len({len(data) for data in columns.values()}) != 1:
        raise UserError("inputs: the tensors do not have as many rows as each other")
    count = len(next(iter(columns.values())))
    if not 1 <= count <= service.options.max_count:
        raise UserError(f"inputs: found {count} rows; allowed: 1 to {service.options.max_count}")
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if "count" in parameters or "format" in parameters:
        raise UserError("parameters: a row is one sample, as a tensor; leave out count and format")
    return [validate(ASKS[service.card.modality], {**parameters, **row}, f"row {i}") for i, row in enumerate(rows)]
