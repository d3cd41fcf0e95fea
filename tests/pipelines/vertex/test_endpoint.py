"""Versions in service: the real client, an endpoint's rules, and the real server behind each deployed version."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.vertex_registry import container
from core.errors import UserError
from pipelines.vertex import endpoints, traffic
from tests.fakes.gcs import GcsServer
from tests.fakes.vertex import VertexServer
from tests.pipelines.vertex.conftest import IMAGE, Cloud, make_cloud
from tests.pipelines.vertex.endpoint_walk import EndpointWalk, register

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A project with the model `tiny` in its registries: version 1 is champion, version 2 its challenger."""
    with pytest.MonkeyPatch.context() as patch, GcsServer() as gcs, VertexServer(gcs) as server:
        for name, value in gcs.environment.items():
            patch.setenv(name, value)
        cloud = make_cloud(gcs, server)
        register(cloud, tmp_path_factory.mktemp("models"))
        yield cloud


@pytest.fixture
def cloud(served: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cloud:
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return served


@pytest.mark.timeout(600)
def test_champion_challenger_rollback_and_undeploy_lose_no_request(cloud: Cloud, tmp_path: Path) -> None:
    walk = EndpointWalk(cloud, tmp_path)
    seen = walk.take()
    assert "estimate: 0.15 to 0.31 USD an hour" in seen["first"]
    assert "tiny@2: has 40 % of the traffic of digits; move it first" in seen["refused"]
    assert (seen["shares"], seen["back"]) == ({"tiny@1": 60, "tiny@2": 40}, {"tiny@1": 60, "tiny@2": 40})
    assert {name for name, _ in seen["switched"]} == {"tiny@2"}
    assert seen["errors"] == []
    given = {name: {picture for of, picture in seen["answers"] if of == name} for name in ("tiny@1", "tiny@2")}
    alone = json.loads(seen["alone"])
    assert alone["model"] == "tiny@1"
    assert given["tiny@1"] == {alone["predictions"][0]["samples"][0]["png"]}, "one seed, one picture, under load too"
    assert len(given["tiny@2"]) == 1
    assert given["tiny@2"] != given["tiny@1"]
    assert "2 to 5" in seen["scaled"]
    assert "tiny@1 is deployed; `--undeploy` ends it too" in seen["kept"]
    assert walk.deployed() == {}


def lines(cloud: Cloud, folder: str, name: str) -> list[dict[str, Any]]:
    blob = cloud.gcs.client().bucket("demo-bucket").blob(f"{folder.removeprefix('gs://demo-bucket/')}/{name}")
    return [json.loads(line) for line in blob.download_as_text().splitlines()]


def test_a_file_of_asks_is_predicted_line_by_line_and_a_wrong_line_costs_only_its_request(
    cloud: Cloud, command: Command, tmp_path: Path
) -> None:
    asks = [{"class": name, "seed": seed} for seed, name in enumerate(("zero", "one", "two", "three"))]
    (tmp_path / "asks.jsonl").write_text("".join(json.dumps(ask) + "\n" for ask in asks))
    arguments = ("batch", "create", "tiny@2", "asks.jsonl", "--size", "2", "--parameters", '{"steps": 2}')
    code, _, err = command(*arguments, "--dry-run")
    assert (code, cloud.server.batches.jobs) == (0, {})
    assert "tiny@2: can predict asks.jsonl" in err
    code, out, err = command(*arguments, "--follow", "--interval", "0.1", "--json")
    assert code == 0, err
    (job,) = json.loads(out)
    assert (job["state"], job["succeeded"], job["failed"]) == ("succeeded", 2, 2)
    done = lines(cloud, job["output"], "predictions_0001.jsonl")
    assert [row["instance"] for row in done] == asks[:2]
    assert [row["prediction"]["samples"][0]["class"] for row in done] == ["zero", "one"]
    failed = lines(cloud, job["output"], "errors_0001.jsonl")
    assert "class: found 'three'; allowed: zero, one, two" in failed[0]["error"]["message"]
    code, out, _ = command("batch", "list", "--json")
    assert [row["number"] for row in json.loads(out)] == [job["number"]]
    code, _, err = command("batch", "cancel", job["number"])
    assert (code, "already JOB_STATE_SUCCEEDED" in err) == (2, True)


@pytest.fixture(scope="module")
def refused(served: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty endpoint; a version that names no server, one whose files are not there; a folder with wrong lines."""
    vertex = served.vertex
    endpoints.create(vertex, "empty")
    for name, spec in (("old", {"image_uri": IMAGE}), ("broken", container(IMAGE))):
        model = {"display_name": name, "container_spec": spec, "artifact_uri": "gs://demo-bucket/nothing",
                 "version_aliases": ["v1"]}  # fmt: skip
        vertex.models.upload_model(request={"parent": vertex.project.parent, "model": model, "model_id": name}).result()
    folder = tmp_path_factory.mktemp("lines")
    (folder / "wrong.jsonl").write_text('{"seed": 1}\n[1]\n')
    (folder / "none.jsonl").write_text("\n")
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("endpoint create Digits", "expected a letter, then lower case letters"),
        ("endpoint create empty", "endpoint empty: there is one already"),
        ("endpoint deploy emty tiny", "did you mean 'empty'? endpoints: "),
        (
            "endpoint deploy empty tiny@9",
            "tiny@9: not in the Vertex AI Model Registry; `textdiffusion models tiny --mirror",
        ),
        ("endpoint deploy empty old@1", "names no container that serves; `textdiffusion models old --mirror`"),
        ("endpoint deploy empty broken@1", "Model server terminated"),
        ("endpoint deploy empty tiny --machine gpu", "--machine: found 'gpu'"),
        ("endpoint deploy empty tiny --min-replicas 3 --max-replicas 2", "replicas: found 3 to 2"),
        ("endpoint deploy empty tiny --traffic 50", "no other version that answers; allowed: 100, or 0"),
        ("endpoint deploy empty tiny --max-replicas 9 --max-cost 1", "0.15 to 1.39 USD an hour"),
        ("endpoint traffic empty tiny@1", "expected MODEL@VERSION=PERCENT"),
        ("endpoint traffic empty tiny@1=50", "tiny@1: not deployed in empty; there: nothing"),
        ("endpoint rollback empty", "no earlier traffic is known"),
        ("endpoint predict empty {}", "has no traffic to deployed models"),
        ("endpoint predict empty {", "instance 1"),
        ("batch create tiny absent.jsonl", "absent.jsonl: no such file"),
        ("batch create tiny {}/wrong.jsonl", "line 2: expected a JSON object"),
        ("batch create tiny {}/none.jsonl", "holds no instance"),
        ("batch create tiny {}/wrong.jsonl --out s3://b/c", "reads and writes gs:// only"),
        ("batch show seven", "expected a number"),
        ("batch show 7", "not found"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    cloud: Cloud, command: Command, refused: Path, arguments: str, words: str
) -> None:
    given = [part.replace("{}/", f"{refused}/") for part in arguments.split()]
    code, _, err = command(*given)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, len(errors)) == (2, 1), err
    assert words in errors[0]
    assert [row for row in endpoints.find(cloud.vertex, "empty").deployed] == []


def test_a_dry_run_makes_nothing(cloud: Cloud, command: Command, refused: Path) -> None:
    code, _, err = command("endpoint", "deploy", "empty", "tiny", "--machine", "t4", "--max-replicas", "4", "--dry-run")
    assert (code, "estimate: 0.62 to 2.48 USD an hour until it is ended" in err) == (0, True)
    assert command("endpoint", "create", "other", "--dry-run")[0] == 0
    assert not endpoints.find(cloud.vertex, "empty").deployed
    assert "other" not in {one.name for one in endpoints.listed(cloud.vertex)}


@pytest.mark.parametrize(
    ("split", "wanted", "made"),
    [
        ({"a": 100}, {"b": 10}, {"a": 90, "b": 10}),
        ({"a": 60, "b": 30, "c": 10}, {"c": 25}, {"a": 50, "b": 25, "c": 25}),
        ({"a": 34, "b": 33, "c": 33}, {"d": 1}, {"a": 33, "b": 33, "c": 33, "d": 1}),
        ({"a": 50, "b": 50}, {"b": 100}, {"b": 100}),
        ({}, {"a": 30, "b": 70}, {"a": 30, "b": 70}),
    ],
)
def test_others_share_what_is_left_as_before(
    split: dict[str, int], wanted: dict[str, int], made: dict[str, int]
) -> None:
    there = tuple(endpoints.Deployed(one, one, split.get(one, 0), 1, 1, "m", "", 0, False) for one in "abcd")
    assert traffic.shared(endpoints.Endpoint("e", "e", there, ""), wanted) == made


def test_of_two_who_move_traffic_at_once_the_second_is_refused(cloud: Cloud, refused: Path) -> None:
    seen = endpoints.find(cloud.vertex, "empty")
    traffic.move(cloud.vertex, seen, {})
    with pytest.raises(UserError, match="was changed meanwhile"):
        traffic.move(cloud.vertex, seen, {})
