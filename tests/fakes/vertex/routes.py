"""HTTP routes of the Vertex AI services, read from the client library itself, and requests parsed by the real protos.

Each gapic REST transport carries the HTTP rules of its methods (`google.api.http`); a fake service that has a method
`create_pipeline_job` is reached by the rule of `CreatePipelineJob`, with a `CreatePipelineJobRequest` that was parsed
strictly: an unknown or mistyped field is refused as the service refuses it.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from google.cloud import aiplatform_v1
from google.protobuf import descriptor, json_format

from tests.fakes.vertex import rules
from tests.fakes.vertex.errors import invalid


@dataclass(frozen=True)
class Route:
    """One HTTP rule bound to the Python method that answers it."""

    verb: str
    pattern: re.Pattern[str]
    variables: tuple[str, ...]
    body: str | None
    request_class: type
    answer: Callable[[Any], Any]

    def parse(self, match: re.Match[str], query: str, content: bytes) -> Any:
        """Builds the request message from path, query string and body.

        Raises:
            ServiceError: INVALID_ARGUMENT for an unknown or mistyped field.
        """
        request = self.request_class.pb(self.request_class())
        fields: dict[str, Any] = {}
        for key, value in parse_qsl(query, keep_blank_values=True):
            if not key.startswith("$"):
                _put(fields, key, value, request.DESCRIPTOR)
        if self.body and content:
            try:
                parsed = json.loads(content)
            except json.JSONDecodeError as error:
                raise invalid(f"Invalid JSON payload received. {error}") from None
            if self.body == "*":
                fields.update(parsed)
            else:
                fields[self.body] = parsed
        try:
            json_format.ParseDict(fields, request)
        except json_format.ParseError as error:
            raise invalid(f"Invalid JSON payload received. {error}") from None
        for variable, value in zip(self.variables, match.groups(), strict=True):
            *parents, leaf = variable.split(".")
            target = request
            for parent in parents:
                target = getattr(target, parent)
            setattr(target, leaf, value)
        made = self.request_class.wrap(request)
        rules.check(made)
        return made


def routes_of(package: str, service: Any) -> Iterator[Route]:
    """Routes of one gapic service package (e.g. `pipeline_service`) that `service` has methods for."""
    module = importlib.import_module(f"google.cloud.aiplatform_v1.services.{package}.transports.rest_base")
    transport = next(kind for name, kind in vars(module).items() if re.fullmatch(r"_Base\w+RestTransport", name))
    for name, rule in vars(transport).items():
        rpc = name.removeprefix("_Base")
        method = getattr(service, re.sub(r"(?<!^)(?=[A-Z])", "_", rpc).lower(), None)
        if method is None or not hasattr(aiplatform_v1, f"{rpc}Request"):
            continue
        for option in rule._get_http_options():
            pattern, variables = _compile(option["uri"])
            yield Route(
                option["method"].upper(),
                pattern,
                variables,
                option.get("body"),
                getattr(aiplatform_v1, f"{rpc}Request"),
                method,
            )


def _compile(uri: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """`/v1/{name=projects/*/schedules/*}:pause` -> a regular expression with one group a variable."""
    parts, variables, at = [], [], 0
    for found in re.finditer(r"\{([\w.]+)=([^}]*)\}", uri):
        parts.append(re.escape(uri[at : found.start()]))
        parts.append("(" + re.escape(found.group(2)).replace(r"\*", r"[^/:]+") + ")")
        variables.append(found.group(1))
        at = found.end()
    parts.append(re.escape(uri[at:]))
    return re.compile("".join(parts)), tuple(variables)


def _put(fields: dict[str, Any], key: str, value: str, message: descriptor.Descriptor) -> None:
    """Sets a dotted query parameter in a JSON dictionary, converted to the type of its field."""
    name, _, rest = key.partition(".")
    field = next((f for f in message.fields if name in (f.name, f.json_name)), None)
    if field is None:
        raise invalid(f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.')
    if rest:
        _put(fields.setdefault(field.json_name, {}), rest, value, field.message_type)
        return
    converted: Any = value
    if field.type == descriptor.FieldDescriptor.TYPE_BOOL:
        converted = value == "true"
    elif field.type == descriptor.FieldDescriptor.TYPE_ENUM and value.lstrip("-").isdigit():
        converted = int(value)
    if field.is_repeated and field.message_type is None:
        fields.setdefault(field.json_name, []).append(converted)
    else:
        fields[field.json_name] = converted
