"""ML Metadata behind the pages, as gRPC-Web: artifacts with what steps stated of them, and which run has which.

KFP's launcher keeps numbers as doubles, truth values as integers, what is nested as a Struct, and adds two properties
(backend/src/v2/metadata/converter.go, client.go).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf import struct_pb2

from tests.fakes.vertex.errors import ServiceError, invalid

SERVICE = "/ml_metadata.MetadataStoreService/"


class Metadata:
    """`artifacts`: metadata by URI; `runs`: URIs of each run."""

    def __init__(self) -> None:
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, list[str]] = {}

    def add(self, run: str, uri: str, metadata: dict[str, Any]) -> None:
        self.artifacts.setdefault(uri, metadata)
        self.runs.setdefault(run, []).append(uri)

    def answer(self, method: str, content: bytes) -> bytes:
        """The body of an answer.

        Raises:
            ServiceError: the request is malformed.
        """
        flags, size = struct.unpack_from(">BI", content)
        if flags or len(content) != 5 + size:
            raise invalid("malformed gRPC-Web frame")
        asked = list(_fields(content[5:]))
        match method:
            case "GetArtifactsByURI":
                message = self._told(uri.decode() for number, uri in asked if number == 2)
            case "GetContextByTypeAndName":
                kind, name = (dict(asked)[number].decode() for number in (1, 2))
                known = kind == "system.PipelineRun" and name in self.runs
                message = _part(1, _number(1, 1 + list(self.runs).index(name))) if known else b""
            case "GetArtifactsByContext":
                message = self._told(list(self.runs.values())[dict(asked)[1] - 1])
            case _:
                raise ServiceError("UNIMPLEMENTED", f"{method} is not served here.")
        trailers = b"grpc-status:0\r\n"
        return struct.pack(">BI", 0, len(message)) + message + struct.pack(">BI", 128, len(trailers)) + trailers

    def _told(self, uris: Iterable[str]) -> bytes:
        numbers = {uri: number for number, uri in enumerate(self.artifacts, 1)}
        answer = b""
        for uri in (uri for uri in uris if uri in numbers):
            values = {**self.artifacts[uri], "display_name": uri.rsplit("/", 1)[1], "store_session_info": "{}"}
            entries = (_part(5, _part(1, key.encode()) + _part(2, _value(value))) for key, value in values.items())
            answer += _part(1, _number(1, numbers[uri]) + _part(3, uri.encode()) + b"".join(entries))
        return answer


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return _number(1, int(value))
    if isinstance(value, int | float):
        return bytes([2 << 3 | 1]) + struct.pack("<d", value)
    if isinstance(value, str):
        return _part(3, value.encode())
    nested = struct_pb2.Struct()
    nested.update({"struct": value} if isinstance(value, dict) else {"list": value})
    return _part(4, nested.SerializeToString())


def _fields(content: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of the fields of a message of texts and numbers."""
    while content:
        kind, (value, content) = content[0], _varint(content[1:])
        if kind & 7 == 2:
            yield kind >> 3, content[:value]
            content = content[value:]
        elif kind & 7 == 0:
            yield kind >> 3, value
        else:
            raise invalid("unknown field")


def _varint(content: bytes) -> tuple[int, bytes]:
    end = next(at for at, byte in enumerate(content) if byte < 128) + 1
    return sum((byte & 127) << 7 * at for at, byte in enumerate(content[:end])), content[end:]


def _number(number: int, value: int) -> bytes:
    written = b""
    while value > 127:
        written, value = written + bytes([value & 127 | 128]), value >> 7
    return bytes([number << 3]) + written + bytes([value])


def _part(number: int, content: bytes) -> bytes:
    """A field of Protocol Buffers that has a length."""
    return bytes([number << 3 | 2]) + _number(0, len(content))[1:] + content
