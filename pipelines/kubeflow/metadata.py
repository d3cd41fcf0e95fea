"""What steps stated of their artifacts. KFP keeps it in ML Metadata; its pages (svc/ml-pipeline-ui) hand requests on to
there, its API server does not.

It speaks gRPC-Web; of its messages the fields that are read are here, by their numbers in
https://github.com/google/ml-metadata/tree/master/ml_metadata/proto
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from core.errors import UserError
from factory.lineage import restore_ints
from pipelines.kubeflow.client import Cluster

_SERVICE = "/ml_metadata.MetadataStoreService"
_RUN = "system.PipelineRun"  # the type of the context that KFP makes for a run
_KIND = "application/grpc-web+proto"
_OF_KFP = ("display_name", "store_session_info")  # what its launcher adds
_AT_ONCE = 100  # URIs of a request
_TRAILERS = 0x80
_MESSAGES = """
name: "textdiffusion/ml_metadata.proto" package: "textdiffusion" syntax: "proto3"
message_type { name: "Value" oneof_decl { name: "value" }
  field { name: "int_value" number: 1 type: TYPE_INT64 oneof_index: 0 }
  field { name: "double_value" number: 2 type: TYPE_DOUBLE oneof_index: 0 }
  field { name: "string_value" number: 3 type: TYPE_STRING oneof_index: 0 } }
message_type { name: "Artifact"
  field { name: "id" number: 1 type: TYPE_INT64 }
  field { name: "uri" number: 3 type: TYPE_STRING }
  field { name: "custom_properties" number: 5 label: LABEL_REPEATED type: TYPE_MESSAGE
    type_name: "Artifact.CustomPropertiesEntry" }
  nested_type { name: "CustomPropertiesEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING }
    field { name: "value" number: 2 type: TYPE_MESSAGE type_name: "Value" } } }
message_type { name: "GetArtifactsByURI"
  field { name: "uris" number: 2 label: LABEL_REPEATED type: TYPE_STRING } }
message_type { name: "GetArtifactsByContext" field { name: "context_id" number: 1 type: TYPE_INT64 } }
message_type { name: "Artifacts"
  field { name: "artifacts" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Artifact" } }
message_type { name: "GetContextByTypeAndName"
  field { name: "type_name" number: 1 type: TYPE_STRING }
  field { name: "context_name" number: 2 type: TYPE_STRING } }
message_type { name: "Found" field { name: "context" number: 1 type: TYPE_MESSAGE type_name: "Context" } }
message_type { name: "Context" field { name: "id" number: 1 type: TYPE_INT64 } }
"""


def stated(cluster: Cluster, uris: Collection[str]) -> dict[str, dict[str, Any]]:
    """The metadata of the artifacts at `uris`; those that it does not know are left out.

    Raises:
        UserError: ML Metadata is not to be had at this address, or refuses.
    """
    known: dict[str, dict[str, Any]] = {}
    asked = sorted(uris)
    for begin in range(0, len(asked), _AT_ONCE):
        request = _message("GetArtifactsByURI")(uris=asked[begin : begin + _AT_ONCE])
        known |= _facts(_call(cluster, request, "Artifacts"))
    return known


def of_run(cluster: Cluster, identity: str) -> dict[str, dict[str, Any]]:
    """The metadata of the artifacts of a run by URI, those that it took from the cache among them.

    Raises:
        UserError: as above.
    """
    request = _message("GetContextByTypeAndName")(type_name=_RUN, context_name=identity)
    context = _call(cluster, request, "Found").context.id
    if not context:  # no step has begun
        return {}
    return _facts(_call(cluster, _message("GetArtifactsByContext")(context_id=context), "Artifacts"))


def _facts(answer: Any) -> dict[str, dict[str, Any]]:
    """Metadata by URI; of several artifacts at one the first, which is the step's own."""
    known: dict[str, dict[str, Any]] = {}
    for artifact in sorted(answer.artifacts, key=lambda one: one.id):
        known.setdefault(artifact.uri, _plain(artifact.custom_properties))
    return known


def _plain(properties: Any) -> dict[str, Any]:
    values = {key: getattr(value, kind) for key, value in properties.items() if (kind := value.WhichOneof("value"))}
    return {key: value for key, value in restore_ints(values).items() if key not in _OF_KFP}


def _call(cluster: Cluster, request: Any, answer: str) -> Any:
    """The answer to a request, which is called as its method."""
    from google.protobuf.message import DecodeError

    content = request.SerializeToString()
    code, headers, body = cluster.post(
        f"{_SERVICE}/{type(request).DESCRIPTOR.name}", struct.pack(">BI", 0, len(content)) + content, _KIND
    )
    where = f"kubeflow {cluster.host}: ML Metadata"
    if code != 200 or not headers.get("Content-Type", "").startswith("application/grpc-web"):
        raise UserError(f"{where}: not to be had here ({code}); set kubeflow_host to the pages, svc/ml-pipeline-ui")
    frames = dict(_frames(body, where))
    said = dict(
        line.partition(":")[::2] for line in frames.get(_TRAILERS, b"").decode("utf-8", "replace").split("\r\n")
    )
    status = headers.get("grpc-status") or said.get("grpc-status", "0")
    if status.strip() != "0":
        told = headers.get("grpc-message") or said.get("grpc-message", "")
        raise UserError(f"{where}: refused with status {status.strip()[:20]}: {told.strip()[:200]}")
    try:
        return _message(answer).FromString(frames.get(0, b""))
    except DecodeError:
        raise UserError(f"{where}: its answer is no message") from None


def _frames(body: bytes, where: str) -> Iterator[tuple[int, bytes]]:
    """(flags, content) of each part of an answer."""
    at = 0
    while at < len(body):
        flags, size = struct.unpack_from(">BI", body.ljust(at + 5, b"\0"), at)
        if at + 5 + size > len(body):
            raise UserError(f"{where}: its answer broke off")
        yield flags, body[at + 5 : at + 5 + size]
        at += 5 + size


@cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, text_format

    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_MESSAGES, descriptor_pb2.FileDescriptorProto()))
    return pool


def _message(name: str) -> Any:
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"textdiffusion.{name}"))
