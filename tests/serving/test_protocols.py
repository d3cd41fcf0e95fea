"""Vertex AI's contract, KServe's V1 and the Open Inference Protocol, as their documents have them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serving.conftest import Served, served


def test_instances_with_parameters_become_predictions(images_server: Served) -> None:
    body = {"instances": [{"class": "two", "seed": 3}, {"seed": 4, "count": 2, "steps": 3}], "parameters": {"steps": 2}}
    alone = [images_server.post("/generate", {"steps": 2, **one}) for one in body["instances"]]
    wanted = {"predictions": [{"seed": one["seed"], "samples": one["samples"]} for one in alone]}
    assert images_server.post("/predict", body) == wanted
    assert images_server.post("/v1/models/tiny:predict", body) == wanted


def test_a_container_on_vertex_ai_is_told_where_to_listen_and_what_to_serve(shelf: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = {
        "AIP_HTTP_PORT": str(port),
        "AIP_HEALTH_ROUTE": "/v1/endpoints/7/deployedModels/8",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/7/deployedModels/8:predict",
        "AIP_STORAGE_URI": str(shelf / "images1"),
    }
    with served(environment=told, warm=False) as server:
        early = server.client.get(told["AIP_HEALTH_ROUTE"])
        assert early.json() == {"ready": early.status_code == 200}
        if early.status_code != 200:  # it listens before it is warm, and says so
            assert early.status_code == 503
        server.wait_for("ready")
        assert server.wait_for("listening") | {"host": "0.0.0.0", "port": port} == server.wait_for("listening")
        assert server.get(told["AIP_HEALTH_ROUTE"]) == {"ready": True}
        made = server.post(told["AIP_PREDICT_ROUTE"], {"instances": [{"class": "one", "seed": 1}]})
        assert made["predictions"][0]["samples"][0]["class"] == "one"


def test_kserve_lists_models_and_their_readiness(images_server: Served) -> None:
    assert images_server.get("/v1/models") == {"models": ["tiny"]}
    assert images_server.get("/v1/models/tiny") == {"name": "tiny", "ready": True}
    assert "not served here" in images_server.get("/v1/models/other", 404)["error"]
    assert "not served here" in images_server.post("/v1/models/other:predict", {"instances": [{}]}, 404)["error"]


def test_what_answers_get_answers_head_without_a_body(images_server: Served) -> None:
    for path in ("/", "/health", "/metrics", "/v1/models", "/v2/health/ready", "/nowhere"):
        asked, said = images_server.client.head(path), images_server.client.get(path)
        assert (asked.status_code, asked.content) == (said.status_code, b"")
        assert path == "/metrics" or asked.headers["content-length"] == said.headers["content-length"]
    assert images_server.client.head("/generate").status_code == 405
    assert 'route="other",status="200"' not in images_server.client.get("/metrics").text  # counted by their routes


def test_open_inference_describes_server_and_model(images_server: Served, text_server: Served) -> None:
    assert images_server.get("/v2/health/live") == {"live": True}
    assert images_server.get("/v2/health/ready") == {"ready": True}
    assert {"name", "version", "extensions"} <= images_server.get("/v2").keys()
    assert images_server.get("/v2/models/tiny/ready") == {"name": "tiny", "ready": True}
    described = images_server.get("/v2/models/tiny")
    assert described == images_server.get("/v2/models/tiny/versions/1")
    assert {"name": "images", "datatype": "UINT8", "shape": [-1, 8, 8]} in described["outputs"]
    assert {"name": "prompt", "datatype": "BYTES", "shape": [-1]} in text_server.get("/v2/models/words")["inputs"]
    assert "not in service" in images_server.get("/v2/models/tiny/versions/9", 422)["error"]


def tensor(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


def test_open_inference_gives_images_as_a_tensor(images_server: Served) -> None:
    inputs = [tensor("class", "BYTES", ["two", "zero"]), tensor("seed", "INT64", [3, 5])]
    made = images_server.post("/v2/models/tiny/infer", {"id": "x7", "inputs": inputs, "parameters": {"steps": 3}})
    assert {key: made[key] for key in ("id", "model_name", "model_version")} == {
        "id": "x7", "model_name": "tiny", "model_version": "1",
    }  # fmt: skip
    images, seeds = made["outputs"]
    assert (images["name"], images["datatype"], images["shape"]) == ("images", "UINT8", [2, 8, 8])
    assert seeds == tensor("seed", "INT64", [3, 5])
    for name, seed, found in zip(("two", "zero"), (3, 5), np.reshape(images["data"], images["shape"]), strict=True):
        ask = {"class": name, "seed": seed, "steps": 3, "format": "array"}
        assert np.array_equal(found, images_server.post("/generate", ask)["samples"][0]["array"])


def test_open_inference_gives_texts(text_server: Served) -> None:
    inputs = [tensor("prompt", "BYTES", ["the cat ", "the ___ sat"]), tensor("seed", "INT64", [3, 4])]
    made = text_server.post("/v2/models/words/versions/1/infer", {"inputs": inputs, "outputs": [{"name": "text"}]})
    alone = [
        text_server.post("/generate", {"prompt": prompt, "seed": seed})["samples"][0]["text"]
        for prompt, seed in (("the cat ", 3), ("the ___ sat", 4))
    ]
    assert made["outputs"] == [tensor("text", "BYTES", alone)]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/predict", {}, "expected instances"),
        ("/predict", {"instances": []}, "expected instances"),
        ("/predict", {"instances": [3]}, "expected objects"),
        ("/predict", {"instances": [{"clas": 3}]}, "instances[0]: clas"),
        ("/predict", {"instances": [{}] * 9}, "found 9; allowed: 1 to 8"),
        ("/predict", [1], "expected a JSON object"),
        ("/v2/models/tiny/infer", {}, "expected inputs"),
        ("/v2/models/tiny/infer", {"inputs": [{"name": "prompt"}]}, "found 'prompt'; allowed: class, seed"),
        ("/v2/models/tiny/infer", {"inputs": [tensor("seed", "FP32", [1])]}, "expected datatype INT64"),
        ("/v2/models/tiny/infer", {"inputs": [{**tensor("seed", "INT64", [1]), "shape": [2]}]}, "found shape [2]"),
        (
            "/v2/models/tiny/infer",
            {"inputs": [tensor("seed", "INT64", [1]), tensor("class", "INT64", [1, 2])]},
            "as many rows",
        ),
        (
            "/v2/models/tiny/infer",
            {"inputs": [tensor("seed", "INT64", [1]), tensor("seed", "INT64", [1, 2])]},
            "inputs.seed: found twice",
        ),
        (
            "/v2/models/tiny/infer",
            {"inputs": [tensor("seed", "INT64", [1])], "outputs": [{"name": "logits"}]},
            "found 'logits'; allowed: images, seed",
        ),
    ],
)
def test_a_body_that_is_something_else_is_one_line(path: str, body: Any, message: str, images_server: Served) -> None:
    assert message in images_server.post(path, body, 422)["error"]


def test_the_interface_describes_itself(images_server: Served, text_server: Served) -> None:
    for server, field in ((images_server, "class"), (text_server, "prompt")):
        described = server.get("/openapi.json")
        schemas = described["components"]["schemas"]
        asked = described["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert field in schemas[asked.rpartition("/")[2]]["properties"]
        assert {"/generate/stream", "/predict", "/v2/models/{name}/infer", "/metrics"} <= described["paths"].keys()


def test_json_that_is_none_is_one_line(images_server: Served) -> None:
    for path in ("/predict", "/generate"):
        headers = {"content-type": "application/json"}
        answer = images_server.client.post(path, content=b"{", headers=headers)
        assert answer.status_code == 422
        assert "\n" not in answer.json()["error"]
