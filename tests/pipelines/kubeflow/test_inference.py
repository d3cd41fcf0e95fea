"""A registered model as KServe's InferenceService: of its API's form; its container runs what `serve` takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from core.errors import UserError
from factory.registry import Registry
from pipelines.kubeflow.inference import inference_service
from pipelines.machines import load_machines
from serving.command import serve
from serving.options import Options
from tests.fakes.gcs import GcsServer
from tests.serving.conftest import MEASURED, add_version, save_images

IMAGE = "registry.example/td:1"


def closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
TEXTS = {"type": "array", "items": TEXT}
MAP = {"type": "object", "additionalProperties": TEXT}
PROBE = closed({"httpGet": closed({"path": TEXT, "port": COUNT}, "port"), "periodSeconds": COUNT})
# https://kserve.github.io/website/docs/reference/crd-api: the fields of v1beta1 that are used, and no others
SCHEMA = closed(
    {
        "apiVersion": {"const": "serving.kserve.io/v1beta1"},
        "kind": {"const": "InferenceService"},
        "metadata": closed({"name": {"pattern": "^[a-z][a-z0-9-]*$"}, "namespace": TEXT, "labels": MAP}, "name"),
        "spec": closed({"predictor": closed({
            "minReplicas": COUNT, "maxReplicas": COUNT, "scaleTarget": COUNT,
            "scaleMetric": {"enum": ["cpu", "memory", "concurrency", "rps"]},
            "canaryTrafficPercent": {"type": "integer", "minimum": 0, "maximum": 100},
            "nodeSelector": MAP, "securityContext": closed({"runAsNonRoot": {"const": True}, "runAsUser": COUNT}),
            "volumes": {"type": "array", "items": closed(
                {"name": TEXT, "emptyDir": closed({"medium": {"const": "Memory"}})}, "name")},
            "containers": {"type": "array", "minItems": 1, "maxItems": 1, "items": closed({
                "name": {"const": "kserve-container"}, "image": TEXT, "command": TEXTS, "args": TEXTS,
                "env": {"type": "array", "items": closed({"name": TEXT, "value": TEXT}, "name", "value")},
                "ports": {"type": "array", "items": closed({"containerPort": COUNT, "protocol": {"const": "TCP"}})},
                "resources": closed({"limits": MAP, "requests": MAP}), "readinessProbe": PROBE, "livenessProbe": PROBE,
                "securityContext": {"type": "object", "additionalProperties": {"type": "boolean"}},
                "volumeMounts": {"type": "array", "items": closed({"name": TEXT, "mountPath": TEXT})},
            }, "name", "image")},
        }, "containers")}, "predictor"),
    },
    "apiVersion", "kind", "metadata", "spec",
)  # fmt: skip


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry in a bucket: tiny@1 is champion, tiny@2 its challenger."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch, GcsServer() as gcs:
        for name, value in gcs.environment.items():
            patch.setenv(name, value)
        gcs.create_bucket("shelf")
        store = Registry("gs://shelf/registry")
        for seed in (1, 2):
            add_version(store, "tiny", folder / str(seed), save_images(folder / str(seed), seed), MEASURED)
        store.promote("tiny", 1, "first")
        yield store.root


def made(name: str, registry: str, row: str = "cpu", **more: Any) -> dict[str, Any]:
    body = dict(yaml.safe_load(inference_service(name, registry, load_machines()[row], IMAGE, **more)))
    jsonschema.Draft202012Validator(SCHEMA).validate(body)
    return body


def served(body: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Options:
    """The options that the container's program makes of its arguments."""
    (container,) = body["spec"]["predictor"]["containers"]
    options: list[Options] = []
    monkeypatch.setattr("serving.server.serve", options.append)
    assert (container["command"], container["args"][0]) == (["textdiffusion"], "serve")
    app = typer.Typer(add_completion=False)
    app.command()(serve)
    app(container["args"][1:], standalone_mode=False)
    return options[0]


def test_a_version_is_fetched_by_kserve_and_served_from_where_it_mounts_it(
    registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = made("tiny@2", registry, "l4", least=0, most=4, canary=10, namespace="team")
    predictor = body["spec"]["predictor"]
    assert body["metadata"] == {"name": "tiny", "namespace": "team",
                                "labels": {"app.kubernetes.io/name": "textdiffusion", "version": "2"}}  # fmt: skip
    assert (predictor["minReplicas"], predictor["maxReplicas"], predictor["canaryTrafficPercent"]) == (0, 4, 10)
    assert predictor["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    (container,) = predictor["containers"]
    variables = {item["name"]: item["value"] for item in container["env"]}
    assert variables == {"STORAGE_URI": "gs://shelf/registry/tiny/versions/00002", "TEXTDIFFUSION_GPUS": "1"}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    options = served(body, monkeypatch)
    assert (options.model, options.host) == ("/mnt/models", "0.0.0.0")
    assert options.port == container["ports"][0]["containerPort"] == container["readinessProbe"]["httpGet"]["port"]


def test_a_model_without_a_version_follows_its_champion(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = made("tiny", registry)
    options = served(body, monkeypatch)
    assert (options.model, options.registry) == ("tiny", registry)
    assert options.poll > 0
    assert "canaryTrafficPercent" not in body["spec"]["predictor"]


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("tiny@7", {}, "no such version"),
        ("absent", {}, "no champion"),
        ("tiny", {"canary": 10}, "follows its champion; name MODEL@VERSION"),
        ("tiny", {"least": 3, "most": 2}, "replicas: found 3 to 2"),
    ],
)
def test_what_cannot_serve_is_refused(registry: str, name: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(name, registry, **more)


def test_a_registry_on_this_machine_is_refused(tmp_path: Path) -> None:
    store = Registry(tmp_path / "registry")
    add_version(store, "tiny", tmp_path / "m", save_images(tmp_path / "m", 1), MEASURED)
    with pytest.raises(UserError, match="is on this machine; pods need"):
        made("tiny@1", store.root)
