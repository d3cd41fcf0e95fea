"""Endpoints: versions of the Vertex registry in service, each with its share of the traffic and its bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import randbelow
from typing import Any

from components.vertex_registry import answers
from core.errors import UserError
from core.similar import did_you_mean
from factory.registry import CHAMPION
from pipelines.costs import Hourly, running
from pipelines.machines import Machine
from pipelines.vertex.client import Vertex, one_line

PATIENCE = 7200.0  # seconds for an operation: the service's own limit for a deployment
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ALLOWED = "allowed: 1 or more, the first not above the second"
Split = dict[str, int]


@dataclass(frozen=True)
class Bounds:
    """On how many machines a version runs, and of which kind."""

    machine: Machine
    least: int = 1
    most: int = 1
    spot: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise UserError(
                f"replicas: found {self.least} to {self.most}; allowed: 1 or more, the first not above the second"
            )

    def cost(self) -> Hourly:
        """Of an hour."""
        return running(self.machine, self.least, self.most, spot=self.spot)

    def resources(self) -> dict[str, Any]:
        """`DedicatedResources`."""
        counts = {"min_replica_count": self.least, "max_replica_count": self.most}
        return {"machine_spec": self.machine.spec(), **counts, **({"spot": True} if self.spot else {})}

    def batch_resources(self) -> dict[str, Any]:
        """`BatchDedicatedResources`."""
        counts = {"starting_replica_count": self.least, "max_replica_count": self.most}
        return {"machine_spec": self.machine.spec(), **counts}


@dataclass(frozen=True)
class Deployed:
    """A version in an endpoint; `share` is its percentage of the traffic."""

    identity: str
    name: str  # MODEL@VERSION
    share: int
    least: int
    most: int
    machine_type: str
    accelerator_type: str
    accelerator_count: int
    spot: bool


@dataclass(frozen=True)
class Endpoint:
    """An endpoint with what is deployed in it."""

    name: str
    resource: str
    deployed: tuple[Deployed, ...]
    etag: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def number(self) -> str:
        """The end of its resource name."""
        return self.resource.rsplit("/", 1)[1]

    @property
    def split(self) -> Split:
        """Percentages of those that have traffic, by deployment."""
        return {one.identity: one.share for one in self.deployed if one.share}

    def find(self, name: str) -> Deployed:
        """The deployed version that MODEL@VERSION or a deployment's number names.

        Raises:
            UserError: there is none.
        """
        matches = [one for one in self.deployed if name in (one.name, one.identity)]
        if matches:
            return matches[0]
        names = [one.name for one in self.deployed]
        near = did_you_mean(name, names)
        raise UserError(f"{name}: not deployed in {self.name}; {near}there: {', '.join(names) or 'nothing'}")


def create(vertex: Vertex, name: str, *, dry_run: bool = False) -> None:
    """Makes an empty endpoint, which costs nothing until something is deployed.

    Raises:
        UserError: the name is not valid or taken.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"endpoint {name!r}: expected a letter, then lower case letters, digits and dashes, at most 63")
    if any(one.name == name for one in listed(vertex)):
        raise UserError(f"endpoint {name}: there is one already")
    if dry_run:
        return
    request: dict[str, Any] = {"parent": vertex.project.parent, "endpoint_id": name, "endpoint": {"display_name": name}}
    if vertex.project.network:
        request["endpoint"]["network"] = vertex.project.network
    if vertex.project.encryption_key:
        request["endpoint"]["encryption_spec"] = {"kms_key_name": vertex.project.encryption_key}
    with _operation(f"endpoint {name}"):
        vertex.endpoints.create_endpoint(request=request).result(timeout=PATIENCE)


def listed(vertex: Vertex) -> list[Endpoint]:
    """All endpoints of the project and region."""
    with one_line("endpoints"):
        return [endpoint_of(one) for one in vertex.endpoints.list_endpoints(parent=vertex.project.parent)]


def find(vertex: Vertex, name: str) -> Endpoint:
    """The endpoint called `name`, or with that number.

    Raises:
        UserError: there is none.
    """
    there = listed(vertex)
    matches = [one for one in there if name in (one.name, one.number)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(f"endpoint {name}: {len(matches)} are called so; name one by its number:"
                        f" {', '.join(one.number for one in matches)}")  # fmt: skip
    names = [one.name for one in there]
    known = f"{did_you_mean(name, names)}endpoints: {', '.join(names) or 'none'}"
    raise UserError(f"endpoint {name}: there is none; {known}; `textdiffusion endpoint create {name}` makes it")


def registered(vertex: Vertex, name: str) -> tuple[str, str]:
    """(MODEL@VERSION, resource name) of the version in the Vertex registry that `name` means, which must serve.

    Raises:
        UserError: it is not there, or names no container that serves.
    """
    from google.api_core.exceptions import NotFound

    model, _, wanted = name.partition("@")
    if not re.fullmatch(rf"[a-z][a-z0-9-]{{0,62}}(@({CHAMPION}|[0-9]{{1,9}}))?", name):
        raise UserError(f"{name}: expected MODEL, MODEL@champion or MODEL@NUMBER")
    alias = CHAMPION if wanted in ("", CHAMPION) else f"v{int(wanted)}"
    mend = f"`textdiffusion models {model} --mirror`"
    try:
        with one_line(name):
            found = vertex.models.get_model(name=f"{vertex.project.parent}/models/{model}@{alias}")
    except UserError as error:
        if not isinstance(error.__context__, NotFound):
            raise
        raise UserError(
            f"{model}@{wanted or CHAMPION}: not in the Vertex AI Model Registry; {mend} brings it there"
        ) from None
    if not answers(found):
        raise UserError(f"{name}: its version in the Vertex AI Model Registry names no container that serves;"
                        f" {mend} uploads it again")  # fmt: skip
    numbers = [other.removeprefix("v") for other in found.version_aliases if re.fullmatch(r"v[0-9]+", other)]
    return f"{model}@{numbers[0] if numbers else found.version_id}", f"{found.name}@{found.version_id}"


def require_new(endpoint: Endpoint, name: str) -> None:
    """Raises UserError if a version is in the endpoint already."""
    if any(one.name == name for one in endpoint.deployed):
        raise UserError(f"{name}: is in {endpoint.name} already; `textdiffusion endpoint scale` changes its bounds")


def deploy(vertex: Vertex, endpoint: Endpoint, name: str, resource: str, bounds: Bounds) -> Deployed:
    """Starts a version in an endpoint, without traffic, and waits until it answers.

    Args:
        vertex: the services.
        endpoint: where.
        name: MODEL@VERSION.
        resource: of the version, as `registered` has it.
        bounds: on which machines.

    Raises:
        UserError: it is deployed there already, or the service refuses or gives up.
    """
    require_new(endpoint, name)
    identity = str(10**9 + randbelow(9 * 10**9))
    deployed = {"id": identity, "model": resource, "display_name": name, "dedicated_resources": bounds.resources()}
    if vertex.project.service_account:
        deployed["service_account"] = vertex.project.service_account
    with _operation(f"{name} in {endpoint.name}"):
        vertex.endpoints.deploy_model(endpoint=endpoint.resource, deployed_model=deployed).result(timeout=PATIENCE)
    return find(vertex, endpoint.number).find(identity)


def scale(vertex: Vertex, endpoint: Endpoint, name: str, least: int, most: int) -> None:
    """Changes the bounds of a version in place."""
    deployed = endpoint.find(name)
    if not 1 <= least <= most:
        raise UserError(f"replicas: found {least} to {most}; {_ALLOWED}")
    counts = {"min_replica_count": least, "max_replica_count": most}
    request = {
        "endpoint": endpoint.resource,
        "deployed_model": {"id": deployed.identity, "dedicated_resources": counts},
        "update_mask": {"paths": [f"dedicated_resources.{name}" for name in counts]},
    }
    with _operation(f"{deployed.name} in {endpoint.name}"):
        vertex.endpoints.mutate_deployed_model(request=request).result(timeout=PATIENCE)


def undeploy(vertex: Vertex, endpoint: Endpoint, name: str) -> None:
    """Ends a version that has no traffic, or is the only one.

    Raises:
        UserError: it has traffic that others could take.
    """
    deployed = endpoint.find(name)
    if deployed.share and len(endpoint.deployed) > 1:
        raise UserError(f"{deployed.name}: has {deployed.share} % of the traffic of {endpoint.name};"
                        f" move it first: textdiffusion endpoint traffic {endpoint.name} OTHER=100")  # fmt: skip
    with _operation(f"{deployed.name} in {endpoint.name}"):
        vertex.endpoints.undeploy_model(endpoint=endpoint.resource, deployed_model_id=deployed.identity).result(
            timeout=PATIENCE
        )


def delete(vertex: Vertex, endpoint: Endpoint, *, undeploy_all: bool = False) -> None:
    """Removes an endpoint, and with `undeploy_all` first what is deployed in it.

    Raises:
        UserError: something is deployed.
    """
    if endpoint.deployed and not undeploy_all:
        names = ", ".join(one.name for one in endpoint.deployed)
        raise UserError(f"endpoint {endpoint.name}: {names} is deployed; `--undeploy` ends it too")
    if endpoint.split:
        with one_line(f"endpoint {endpoint.name}"):
            vertex.endpoints.update_endpoint(
                endpoint={"name": endpoint.resource}, update_mask={"paths": ["traffic_split"]}
            )
    for one in endpoint.deployed:
        undeploy(vertex, find(vertex, endpoint.number), one.identity)
    with _operation(f"endpoint {endpoint.name}"):
        vertex.endpoints.delete_endpoint(name=endpoint.resource).result(timeout=PATIENCE)


def predict(vertex: Vertex, endpoint: Endpoint, instances: list[Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Predictions of one of the versions that have traffic, and which one it was."""
    with one_line(f"endpoint {endpoint.name}"):
        made = vertex.predictions.predict(endpoint=endpoint.resource, instances=instances, parameters=dict(parameters))
    from google.protobuf import json_format

    plain = json_format.MessageToDict(type(made).pb(made))
    return {"model": made.model_display_name, "predictions": plain.get("predictions", [])}


@contextmanager
def _operation(what: str) -> Iterator[None]:
    """An operation that is waited for: its refusal, and its want of an end, are one line."""
    with one_line(what):
        try:
            yield
        except TimeoutError:
            raise UserError(f"{what}: not done after {PATIENCE / 60:.0f} min; it goes on, see the console") from None


def endpoint_of(message: Any) -> Endpoint:
    """An endpoint as the service has it."""
    shares = dict(message.traffic_split)
    deployed = []
    for one in message.deployed_models:
        resources = one.dedicated_resources
        machine = resources.machine_spec
        accelerator = machine.accelerator_type.name if machine.accelerator_type else ""
        deployed.append(
            Deployed(one.id, one.display_name, shares.get(one.id, 0), resources.min_replica_count,
                     resources.max_replica_count, machine.machine_type, accelerator, machine.accelerator_count,
                     bool(resources.spot))
        )  # fmt: skip
    return Endpoint(message.display_name, message.name, tuple(deployed), message.etag, dict(message.labels))
