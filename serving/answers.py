"""Samples as JSON: images as PNG in base64 or as numbers, texts as they are."""

from __future__ import annotations

import asyncio
import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.asks import Ask, ImageAsk
from serving.orders import Order


def picture(image: NDArray[np.uint8]) -> str:
    """A PNG in base64, pixel by pixel."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def sample(ask: Ask, order: Order, index: int, state: Any) -> dict[str, Any]:
    """Sample `index` of an order, finished or not."""
    if not isinstance(ask, ImageAsk):
        return {"index": index, "text": state}
    label = order.rows[index]["label"]
    name = order.card.classes[label] if label >= 0 else None
    shown = {"png": picture(state)} if ask.format == "png" else {"array": state.tolist()}
    return {"index": index, "class": name, **shown}


def _answer(ask: Ask, order: Order) -> dict[str, Any]:
    return {"seed": order.seed, "samples": [sample(ask, order, i, order.samples[i]) for i in range(len(order.rows))]}


async def answer(ask: Ask, order: Order) -> dict[str, Any]:
    """A finished order; its pictures are compressed outside the event loop."""
    return await asyncio.to_thread(_answer, ask, order)


def model(order: Order) -> dict[str, str]:
    """The model that drew an order."""
    return {"model": order.card.name, "version": order.card.version, "weights_sha256": order.card.weights_sha256}
