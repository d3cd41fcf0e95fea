"""Endpoints: versions are deployed into them, really started, and asked by their share of the traffic."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.cloud import aiplatform_v1 as v1
from google.longrunning import operations_pb2
from google.protobuf import json_format

from tests.fakes.vertex.containers import COPIES, Container
from tests.fakes.vertex.errors import ServiceError, invalid, not_found
from tests.fakes.vertex.filters import listed
from tests.fakes.vertex.jobs import ACCOUNT, Numbers, now
from tests.fakes.vertex.machines import check_machine

_ENDPOINT_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?|[1-9][0-9]{0,8}")
_DEPLOYED_ID = re.compile(r"[0-9]{1,10}")
_METRICS = {
    f"aiplatform.googleapis.com/prediction/online/{name}"
    for name in ("accelerator/duty_cycle", "cpu/utilization", "request_count")
}
_CHANGEABLE = ("display_name", "description", "labels", "traffic_split")
_SCALABLE = ("min_replica_count", "max_replica_count", "required_replica_count", "autoscaling_metric_specs")


class EndpointService:
    """`projects.locations.endpoints`, and predictions by them."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.endpoints: dict[str, v1.Endpoint] = {}
        self.containers: dict[str, Container] = {}
        self._number, self._deployed = Numbers(8_000_000_000_000_000_001), Numbers(4_000_000_001)
        self._draw = random.Random(0)

    def create_endpoint(self, request: v1.CreateEndpointRequest) -> operations_pb2.Operation:
        endpoint = request.endpoint
        if not endpoint.display_name:
            raise invalid("endpoint.display_name is required.")
        if endpoint.deployed_models or endpoint.traffic_split:
            raise invalid("Models are deployed by DeployModel; a new endpoint has no traffic_split.")
        identity = request.endpoint_id or self._number()
        if request.endpoint_id and not _ENDPOINT_ID.fullmatch(identity):
            raise invalid(f"endpoint_id {identity!r} does not match {_ENDPOINT_ID.pattern}")
        check_labels(endpoint.labels)
        endpoint.name = f"{request.parent}/endpoints/{identity}"
        if endpoint.name in self.endpoints:
            raise ServiceError("ALREADY_EXISTS", f"{endpoint.name} already exists.")
        endpoint.create_time = now()
        self._touch(endpoint)
        self.endpoints[endpoint.name] = endpoint
        made = v1.Endpoint(name=endpoint.name)
        return self._server.operations.done(request.parent, made, v1.CreateEndpointOperationMetadata())

    def get_endpoint(self, request: v1.GetEndpointRequest) -> v1.Endpoint:
        return self._find(request.name)

    def list_endpoints(self, request: v1.ListEndpointsRequest) -> v1.ListEndpointsResponse:
        found, token = listed(self.endpoints.values(), request)
        return v1.ListEndpointsResponse(endpoints=found, next_page_token=token)

    def update_endpoint(self, request: v1.UpdateEndpointRequest) -> v1.Endpoint:
        endpoint = self._find(request.endpoint.name)
        if request.endpoint.etag and request.endpoint.etag != endpoint.etag:
            raise ServiceError("ABORTED", f"The etag of {endpoint.name} is {endpoint.etag}: it was changed meanwhile.")
        if not request.update_mask.paths:
            raise invalid("update_mask is required.")
        for path in request.update_mask.paths:
            if path not in _CHANGEABLE:
                raise invalid(f"update_mask: {path} cannot be updated.")
        if "traffic_split" in request.update_mask.paths:
            check_split(request.endpoint.traffic_split, (one.id for one in endpoint.deployed_models))
        check_labels(request.endpoint.labels)
        for path in request.update_mask.paths:
            setattr(endpoint, path, getattr(request.endpoint, path))
        return self._touch(endpoint)

    def delete_endpoint(self, request: v1.DeleteEndpointRequest) -> operations_pb2.Operation:
        endpoint = self._find(request.name)
        if endpoint.deployed_models:
            raise ServiceError("FAILED_PRECONDITION", f"{endpoint.name} has deployed or being-deployed models.")
        del self.endpoints[endpoint.name]
        return self._server.operations.done(_location(endpoint.name), None, v1.DeleteOperationMetadata())

    def deploy_model(self, request: v1.DeployModelRequest) -> operations_pb2.Operation:
        endpoint, deployed = self._find(request.endpoint), request.deployed_model
        model = self._server.models.get_model(v1.GetModelRequest(name=deployed.model))
        check_resources(deployed.dedicated_resources)
        if deployed.service_account and not ACCOUNT.fullmatch(deployed.service_account):
            raise invalid(f"service_account {deployed.service_account!r} is not valid.")
        present = [one.id for one in endpoint.deployed_models]
        if deployed.id and (not _DEPLOYED_ID.fullmatch(deployed.id) or deployed.id in present):
            raise invalid(f"deployed_model.id {deployed.id!r} is taken, or not 1-10 digits.")
        if request.traffic_split:
            check_split(request.traffic_split, [*present, "0"])
        deployed.id = deployed.id or self._deployed()
        deployed.display_name = deployed.display_name or model.display_name
        deployed.model, deployed.model_version_id, deployed.create_time = model.name, model.version_id, now()
        if not deployed.dedicated_resources.max_replica_count:
            deployed.dedicated_resources.max_replica_count = deployed.dedicated_resources.min_replica_count
        split = {deployed.id if key == "0" else key: share for key, share in request.traffic_split.items()}

        def ready(container: Container) -> v1.DeployModelResponse:
            self.containers[deployed.id] = container
            endpoint.deployed_models.append(deployed)
            if split:
                endpoint.traffic_split = split
            self._touch(endpoint)
            return v1.DeployModelResponse(deployed_model=deployed)

        more = {"AIP_ENDPOINT_ID": endpoint.name.rsplit("/", 1)[1], "AIP_DEPLOYED_MODEL_ID": deployed.id}
        metadata = v1.DeployModelOperationMetadata()
        return self._server.operations.run(
            _location(endpoint.name), metadata, lambda: self.started(model, more), ready, self._server.lock
        )

    def undeploy_model(self, request: v1.UndeployModelRequest) -> operations_pb2.Operation:
        endpoint = self._find(request.endpoint)
        left = [one for one in endpoint.deployed_models if one.id != request.deployed_model_id]
        if len(left) == len(endpoint.deployed_models):
            raise not_found(f"DeployedModel {request.deployed_model_id}")
        split = dict(request.traffic_split or endpoint.traffic_split) if left else {}
        if request.traffic_split:
            check_split(split, (one.id for one in left))
        elif split.get(request.deployed_model_id):
            said = f"DeployedModel {request.deployed_model_id} has traffic; move it elsewhere first."
            raise ServiceError("FAILED_PRECONDITION", said)
        split.pop(request.deployed_model_id, None)
        endpoint.deployed_models, endpoint.traffic_split = left, split
        self._touch(endpoint)
        threading.Thread(target=self.containers.pop(request.deployed_model_id).close, daemon=True).start()
        answer = v1.UndeployModelResponse()
        return self._server.operations.done(_location(endpoint.name), answer, v1.UndeployModelOperationMetadata())

    def mutate_deployed_model(self, request: v1.MutateDeployedModelRequest) -> operations_pb2.Operation:
        endpoint, change = self._find(request.endpoint), request.deployed_model
        deployed = next((one for one in endpoint.deployed_models if one.id == change.id), None)
        if deployed is None:
            raise not_found(f"DeployedModel {change.id}")
        resources = v1.DedicatedResources()
        v1.DedicatedResources.copy_from(resources, deployed.dedicated_resources)
        for path in request.update_mask.paths:
            section, _, field = path.rpartition(".")
            if section != "dedicated_resources" or field not in _SCALABLE:
                raise invalid(f"update_mask: {path} cannot be mutated.")
            setattr(resources, field, getattr(change.dedicated_resources, field))
        check_resources(resources)
        deployed.dedicated_resources = resources
        self._touch(endpoint)
        answer = v1.MutateDeployedModelResponse(deployed_model=deployed)
        return self._server.operations.done(_location(endpoint.name), answer, v1.MutateDeployedModelOperationMetadata())

    def predict(self, request: v1.PredictRequest) -> Callable[[], v1.PredictResponse]:
        """What answers the request; called without the server's lock, as predictions run side by side."""
        endpoint = self._find(request.endpoint)
        if not endpoint.traffic_split:
            raise ServiceError("FAILED_PRECONDITION", f"Endpoint {endpoint.name} has no traffic to deployed models.")
        ids, shares = zip(*endpoint.traffic_split.items(), strict=True)
        chosen = self._draw.choices(ids, shares)[0]
        deployed = next(one for one in endpoint.deployed_models if one.id == chosen)
        container = self.containers[chosen]
        container.reserve()
        plain = json_format.MessageToDict(v1.PredictRequest.pb(request))
        body = {key: plain[key] for key in ("instances", "parameters") if key in plain}

        def answer() -> v1.PredictResponse:
            said = container.predict(body)
            made = v1.PredictResponse(
                deployed_model_id=deployed.id, model=deployed.model, model_version_id=deployed.model_version_id,
                model_display_name=deployed.display_name,
            )  # fmt: skip
            json_format.ParseDict({"predictions": said["predictions"]}, v1.PredictResponse.pb(made))
            return made

        return answer

    def started(self, model: v1.Model, more: Mapping[str, str]) -> Container:
        """A healthy container of a version, over the service's own copy of its files."""
        storage = self._copied(model)
        environment = {
            **self._server.image,
            "AIP_PROJECT_NUMBER": self._server.number,
            "AIP_MODE": "PREDICTION",
            **more,
        }
        container = Container(model.container_spec, storage, environment)
        container.wait()
        return container

    def close(self) -> None:
        """Ends what still serves."""
        for container in self.containers.values():
            container.close()

    def _copied(self, model: v1.Model) -> str:
        if not model.artifact_uri:
            return ""
        client = self._server.gcs.client()
        bucket, _, prefix = model.artifact_uri.removeprefix("gs://").partition("/")
        if not self._server.bucket_exists(COPIES):
            self._server.gcs.create_bucket(COPIES)
        target = f"{model.name.rsplit('/', 1)[1]}/{model.version_id}"
        source, copies = client.bucket(bucket), client.bucket(COPIES)
        for blob in client.list_blobs(bucket, prefix=f"{prefix.rstrip('/')}/"):
            source.copy_blob(blob, copies, target + blob.name.removeprefix(prefix.rstrip("/")))
        return f"gs://{COPIES}/{target}"

    def _find(self, name: str) -> v1.Endpoint:
        if name not in self.endpoints:
            raise not_found(name)
        return self.endpoints[name]

    def _touch(self, endpoint: v1.Endpoint) -> v1.Endpoint:
        endpoint.update_time, endpoint.etag = now(), self._number()
        return endpoint


def check_resources(resources: v1.DedicatedResources) -> None:
    """Raises INVALID_ARGUMENT for machines or bounds that `DedicatedResources` does not allow."""
    machine = resources.machine_spec
    if not machine.machine_type:
        raise invalid("deployed_model.dedicated_resources.machine_spec is required.")
    accelerator = "" if not machine.accelerator_type else machine.accelerator_type.name
    check_machine(machine.machine_type, accelerator, machine.accelerator_count)
    if resources.min_replica_count < 1:
        raise invalid("min_replica_count must be greater than or equal to 1.")
    if resources.max_replica_count and resources.max_replica_count < resources.min_replica_count:
        raise invalid("max_replica_count must not be less than min_replica_count.")
    names = [metric.metric_name for metric in resources.autoscaling_metric_specs]
    if len(set(names)) < len(names) or not _METRICS.issuperset(names):
        raise invalid(f"autoscaling_metric_specs: {names}: at most one entry is allowed per metric of {_METRICS}.")
    if any(not 0 <= metric.target <= 100 for metric in resources.autoscaling_metric_specs):
        raise invalid("autoscaling_metric_specs.target is a percentage.")


def check_split(split: Mapping[str, int], known: Iterable[str]) -> None:
    """Raises INVALID_ARGUMENT unless a traffic split is empty, or adds up to 100 over deployed models."""
    unknown = set(split) - set(known)
    if unknown:
        raise invalid(f"traffic_split: {sorted(unknown)[0]} is not a DeployedModel of this endpoint.")
    if split and (sum(split.values()) != 100 or min(split.values()) < 0):
        raise invalid("The traffic percentage values must add up to 100.")


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises INVALID_ARGUMENT for labels that no resource may have."""
    for key, value in labels.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            raise invalid(f"Label {key}={value!r} is not valid.")


def _location(name: str) -> str:
    return "/".join(name.split("/")[:4])
