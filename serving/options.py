"""How a service is run: from the command line, and from the variables that Vertex AI sets in a container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from core.config import Frozen, Place, validate
from core.errors import UserError
from core.schemes import allowed_place
from factory import hub

CONTAINER = {  # https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements
    "AIP_HTTP_PORT": "port",
    "AIP_HEALTH_ROUTE": "health_route",
    "AIP_PREDICT_ROUTE": "predict_route",
    "AIP_STORAGE_URI": "model",
}
ROUTE = r"^/[A-Za-z0-9/._:-]{0,200}$"


def _allowed_model(text: str) -> str:
    return text if hub.is_hub(text) else allowed_place(text)


class Options(Frozen):
    """What is served, where, and within which limits."""

    model: Annotated[str, AfterValidator(_allowed_model)] = Field(min_length=1)
    registry: Place = "registry"
    runs: Place = "runs"
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535, description="0: any free one, which the log names")
    health_route: str = Field("/health", pattern=ROUTE, description="letters, digits and / . _ : -")
    predict_route: str = Field("/predict", pattern=ROUTE, description="letters, digits and / . _ : -")
    steps: int | None = Field(None, ge=1, le=10_000, description="of the sampler; null: as measured")
    guidance: float | None = Field(None, ge=0, le=50, description="null: as measured")
    batch: int | None = Field(None, ge=1, le=1024, description="samples in a batch; null: what suits the device")
    queue: int = Field(256, ge=1, le=100_000, description="samples that may wait; more are refused with 429")
    deadline: float = Field(60, gt=0, le=3600, description="seconds that a request may take")
    max_count: int = Field(64, ge=1, le=10_000, description="samples of a request")
    max_steps: int = Field(100, ge=1, le=10_000)
    max_length: int = Field(1024, ge=1, le=100_000, description="tokens of a text")
    poll: float = Field(15, ge=0, le=86_400, description="seconds between looks for a new champion; 0: never")
    watch: Place | None = Field(None, description="folder for latencies and the newest samples; null: none are kept")
    watch_keep: int = Field(512, ge=2, le=100_000, description="samples that are kept")
    grace: float = Field(30, gt=0, le=3600, description="seconds for queued requests after SIGTERM")


def options_of(given: Mapping[str, Any], environment: Mapping[str, str]) -> Options:
    """The options; None means not given. What the command line leaves open comes from a container's variables.

    Raises:
        UserError: no model is named, or a value is not valid.
    """
    values: dict[str, Any] = {"host": "0.0.0.0"} if "AIP_HTTP_PORT" in environment else {}
    values |= {field: environment[name] for name, field in CONTAINER.items() if environment.get(name)}
    values |= {field: value for field, value in given.items() if value is not None}
    if not values.get("model"):
        raise UserError("serve: no model; name one, or set AIP_STORAGE_URI to its folder")
    return validate(Options, values, "serve")
