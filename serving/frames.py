"""What the service and its worker say to each other over two pipes: a JSON header and bytes, each with its length."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any, BinaryIO

Header = dict[str, Any]
_LENGTHS = struct.Struct(">II")


def packed(header: Header, payload: bytes = b"") -> bytes:
    """One frame."""
    text = json.dumps(header, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return _LENGTHS.pack(len(text), len(payload)) + text + payload


async def receive(stream: asyncio.StreamReader) -> tuple[Header, bytes]:
    """The next frame; IncompleteReadError when the other side is gone."""
    first, second = _LENGTHS.unpack(await stream.readexactly(_LENGTHS.size))
    return _header(await stream.readexactly(first)), await stream.readexactly(second)


def read(stream: BinaryIO) -> Header | None:
    """The header of the next frame; None when the other side is gone."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    first, second = _LENGTHS.unpack(lengths)
    text = stream.read(first)
    stream.read(second)
    return _header(text) if len(text) == first else None


def _header(text: bytes) -> Header:
    return dict(json.loads(text.decode("utf-8", "surrogatepass")))
