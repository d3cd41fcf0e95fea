"""The emulator's endpoints and batches, called by the real clients: what they refuse by the protos' own words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1 as v1

from components.vertex_registry import container
from tests.fakes.gcs import GcsServer
from tests.fakes.vertex import VertexServer

PARENT = "projects/demo/locations/us-central1"
CPU = {"machine_type": "e2-standard-4"}


@pytest.fixture(scope="module")
def server() -> Iterator[VertexServer]:
    """A project with the model `m` and the endpoint `e`, in which deployments 1 and 2 share the traffic."""
    with GcsServer() as gcs, VertexServer(gcs) as server:
        gcs.create_bucket("bucket")
        model = {"display_name": "m", "container_spec": container("image:1"), "artifact_uri": "gs://bucket/m"}
        client(v1.ModelServiceClient, server).upload_model(
            request={"parent": PARENT, "model": model, "model_id": "m"}
        ).result()
        endpoints = client(v1.EndpointServiceClient, server)
        request = {"parent": PARENT, "endpoint": {"display_name": "e"}, "endpoint_id": "e"}
        endpoints.create_endpoint(request=request).result()
        there = server.endpoints.endpoints[f"{PARENT}/endpoints/e"]
        resources = {"machine_spec": CPU, "min_replica_count": 1, "max_replica_count": 1}
        there.deployed_models = [v1.DeployedModel(id=one, dedicated_resources=resources) for one in "12"]
        there.traffic_split = {"1": 70, "2": 30}
        yield server


def client(kind: Any, server: VertexServer) -> Any:
    return kind(credentials=AnonymousCredentials(), client_options={"api_endpoint": server.url}, transport="rest")


def deployment(**change: Any) -> dict[str, Any]:
    resources = {"machine_spec": CPU, "min_replica_count": 1, "max_replica_count": 1, **change.pop("resources", {})}
    return {"model": f"{PARENT}/models/m", "dedicated_resources": resources, **change}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("create_endpoint", {"parent": PARENT, "endpoint": {}}, "display_name is required"),
    ("create_endpoint", {"parent": PARENT, "endpoint": {"display_name": "x" * 129}}, "at most 128"),
    ("create_endpoint", {"parent": PARENT, "endpoint": {"display_name": "x"}, "endpoint_id": "X-"}, "does not match"),
    ("create_endpoint", {"parent": PARENT, "endpoint": {"display_name": "e"}, "endpoint_id": "e"}, "already exists"),
    ("create_endpoint", {"parent": PARENT, "endpoint": {"display_name": "x", "traffic_split": {"1": 100}}}, "DeployM"),
    ("create_endpoint", {"parent": PARENT, "endpoint": {"display_name": "x", "labels": {"a": "B"}}}, "is not valid"),
    ("deploy_model", {"deployed_model": deployment(model=f"{PARENT}/models/n")}, "models/n is not found"),
    ("deploy_model", {"deployed_model": deployment(resources={"machine_spec": {}})}, "machine_spec is required"),
    ("deploy_model", {"deployed_model": deployment(resources={"min_replica_count": 0})}, "greater than or equal to 1"),
    ("deploy_model", {"deployed_model": deployment(resources={"min_replica_count": 2})}, "must not be less than"),
    ("deploy_model", {"deployed_model": deployment(resources={"machine_spec": {"machine_type": "g2-standard-8"}})},
     "requires an accelerator"),
    ("deploy_model", {"deployed_model": deployment(id="1")}, "is taken, or not 1-10 digits"),
    ("deploy_model", {"deployed_model": deployment(id="12345678901")}, "is taken, or not 1-10 digits"),
    ("deploy_model", {"deployed_model": deployment(service_account="me")}, "service_account 'me' is not valid"),
    ("deploy_model", {"deployed_model": deployment(), "traffic_split": {"0": 10}}, "must add up to 100"),
    ("deploy_model", {"deployed_model": deployment(), "traffic_split": {"0": 50, "9": 50}}, "9 is not a DeployedModel"),
    ("undeploy_model", {"deployed_model_id": "3"}, "DeployedModel 3 is not found"),
    ("undeploy_model", {"deployed_model_id": "2"}, "DeployedModel 2 has traffic"),
    ("mutate_deployed_model", {"deployed_model": {"id": "1"}, "update_mask": {"paths": ["model"]}}, "cannot be mutat"),
    ("update_endpoint", {"update_mask": {"paths": ["network"]}}, "network cannot be updated"),
    ("update_endpoint", {"update_mask": {"paths": []}}, "update_mask is required"),
    ("update_endpoint", {"endpoint": {"traffic_split": {"1": 90}}, "update_mask": {"paths": ["traffic_split"]}}, "100"),
    ("delete_endpoint", {"name": f"{PARENT}/endpoints/e"}, "has deployed or being-deployed models"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "request_", "words"), REFUSED)
def test_what_the_protos_do_not_allow_of_an_endpoint_is_refused(
    server: VertexServer, method: str, request_: dict[str, Any], words: str
) -> None:
    request = dict(request_)
    name = f"{PARENT}/endpoints/e"
    if method == "update_endpoint":
        request["endpoint"] = {"name": name, **request.get("endpoint", {})}
    elif "parent" not in request and "name" not in request:
        request["endpoint"] = name
    with pytest.raises(exceptions.GoogleAPICallError, match=words):
        getattr(client(v1.EndpointServiceClient, server), method)(request=request)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": f"{PARENT}/models/n"}, "models/n is not found"),
        ({"input_config": {"instances_format": "yaml", "gcs_source": {"uris": ["gs://bucket/a"]}}}, "is not supported"),
        ({"input_config": {"instances_format": "jsonl"}}, "uris is required"),
        ({"input_config": {"instances_format": "jsonl", "gcs_source": {"uris": ["gs://absent/a"]}}}, "not in a bucket"),
        ({"dedicated_resources": {}}, "does not support AUTOMATIC_RESOURCES"),
        ({"dedicated_resources": {"machine_spec": CPU, "starting_replica_count": 11}}, "must not be greater"),
        ({"display_name": ""}, "display_name is required"),
    ],
)
def test_what_the_protos_do_not_allow_of_a_batch_is_refused(
    server: VertexServer, change: dict[str, Any], words: str
) -> None:
    job = {
        "display_name": "b",
        "model": f"{PARENT}/models/m",
        "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": ["gs://bucket/a.jsonl"]}},
        "output_config": {"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": "gs://bucket/out"}},
        "dedicated_resources": {"machine_spec": CPU},
        **change,
    }
    with pytest.raises(exceptions.GoogleAPICallError, match=words):
        client(v1.JobServiceClient, server).create_batch_prediction_job(parent=PARENT, batch_prediction_job=job)
    assert server.batches.jobs == {}
