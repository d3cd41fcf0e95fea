"""Versions in service: the real client, an endpoint's rules, and the real server behind each deployed version."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.vertex_registry import mirror
from factory.registry import Registry
from pipelines.vertex import endpoints
from tests.fakes.gcs import GcsServer
from tests.fakes.vertex import VertexServer
from tests.pipelines.vertex.conftest import IMAGE, Cloud, make_cloud
from tests.serving.conftest import MEASURED, add_version, save_images

ASK = {"class": "one", "seed": 5}
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A project with the model `tiny` in its registries: version 1 is champion, version 2 its challenger."""
    root = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch, GcsServer() as gcs, VertexServer(gcs) as server:
        cloud = make_cloud(gcs, server)
        for name, value in gcs.environment.items():
            patch.setenv(name, value)
        registry = Registry("gs://demo-bucket/registry")
        for seed in (1, 2):
            add_version(registry, "tiny", root / str(seed), save_images(root / str(seed), seed), MEASURED)
        registry.promote("tiny", 1, "first")
        mirror(cloud.vertex.models, cloud.vertex.project.parent, registry, "tiny", IMAGE)
        yield cloud


@pytest.fixture
def cloud(served: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cloud:
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return served


def rows(command: Command, name: str) -> dict[str, dict[str, Any]]:
    code, out, err = command("endpoint", "list", "--json")
    assert code == 0, err
    return {row["version"]: row for row in json.loads(out) if row["endpoint"] == name}


def ask(command: Command, name: str) -> dict[str, Any]:
    code, out, err = command("endpoint", "predict", name, json.dumps(ASK))
    assert code == 0, err
    return dict(json.loads(out))


class Load:
    """Clients that ask an endpoint without a pause, until told to stop; every answer is kept."""

    def __init__(self, cloud: Cloud, name: str, clients: int = 3) -> None:
        self.answers: list[tuple[str, str]] = []
        self.errors: list[Exception] = []
        self._cloud, self._stop = cloud, threading.Event()
        self._endpoint = endpoints.find(cloud.vertex, name)
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        vertex = self._cloud.vertex
        while not self._stop.is_set():
            try:
                said = endpoints.predict(vertex, self._endpoint, [ASK], {})
                self.answers.append((said["model"], said["predictions"][0]["samples"][0]["png"]))
            except Exception as error:
                self.errors.append(error)

    def wait_for(self, more: int) -> None:
        """Until so many more answers have come."""
        wanted, end = len(self.answers) + more, time.monotonic() + 120
        while len(self.answers) < wanted:
            assert time.monotonic() < end
            time.sleep(0.02)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_champion_challenger_rollback_and_undeploy_lose_no_request(cloud: Cloud, command: Command) -> None:
    assert command("endpoint", "create", "digits")[0] == 0
    code, out, err = command("endpoint", "deploy", "digits", "tiny", "--max-replicas", "2", "--json")
    assert code == 0, err
    assert "estimate: 0.15 to 0.31 USD an hour" in err
    (first,) = json.loads(out)
    assert (first["version"], first["traffic"], first["replicas"]) == ("tiny@1", 100, "1 to 2")
    champion = ask(command, "digits")
    assert champion["model"] == "tiny@1"
    pictures = {"tiny@1": champion["predictions"][0]["samples"][0]["png"]}
    with Load(cloud, "digits") as load:
        assert command("endpoint", "deploy", "digits", "tiny@2", "--traffic", "40")[0] == 0
        load.wait_for(40)
        assert {name: row["traffic"] for name, row in rows(command, "digits").items()} == {"tiny@1": 60, "tiny@2": 40}
        assert command("endpoint", "traffic", "digits", "tiny@2=100")[0] == 0
        load.wait_for(20)
        assert {name for name, _ in load.answers[-5:]} == {"tiny@2"}
        assert command("endpoint", "rollback", "digits")[0] == 0
        assert rows(command, "digits")["tiny@1"]["traffic"] == 60
        load.wait_for(10)
        code, _, err = command("endpoint", "undeploy", "digits", "tiny@2")
        assert (code, err.count("\n")) == (2, 1)
        assert "tiny@2: has 40 % of the traffic" in err
        assert command("endpoint", "traffic", "digits", "tiny@1=100")[0] == 0
        assert command("endpoint", "undeploy", "digits", "tiny@2")[0] == 0
        load.wait_for(10)
    assert load.errors == []
    given = {name: {picture for of, picture in load.answers if of == name} for name in ("tiny@1", "tiny@2")}
    assert given["tiny@1"] == {pictures["tiny@1"]}, "one seed gives one picture, under load as alone"
    assert len(given["tiny@2"]) == 1
    assert given["tiny@2"] != given["tiny@1"]
    assert command("endpoint", "scale", "digits", "tiny@1", "--min-replicas", "2", "--max-replicas", "5")[0] == 0
    assert rows(command, "digits")["tiny@1"]["replicas"] == "2 to 5"
    code, _, err = command("endpoint", "delete", "digits")
    assert (code, "tiny@1 is deployed; `--undeploy` ends it too" in err) == (2, True)
    assert command("endpoint", "delete", "digits", "--undeploy")[0] == 0
    assert rows(command, "digits") == {}
