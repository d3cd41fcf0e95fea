"""Versions in service on Vertex AI, from the champion to its rollback, while clients ask without a pause.

`python -m tests.pipelines.vertex.endpoint_walk FILE` takes the walk and writes what was typed and answered to FILE.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

from components.vertex_registry import mirror
from factory.registry import Registry
from pipelines.vertex import endpoints
from tests.fakes.gcs import GcsServer
from tests.fakes.vertex import VertexServer
from tests.pipelines.vertex.conftest import IMAGE, Cloud, make_cloud
from tests.pipelines.vertex.walk import Walk
from tests.serving.conftest import MEASURED, add_version, save_images

ASK = {"class": "one", "seed": 5}


def register(cloud: Cloud, folder: Path) -> None:
    """The model `tiny` in the bucket and in the Vertex registry: version 1 is champion, version 2 its challenger."""
    registry = Registry("gs://demo-bucket/registry")
    for seed in (1, 2):
        add_version(registry, "tiny", folder / str(seed), save_images(folder / str(seed), seed), MEASURED)
    registry.promote("tiny", 1, "first")
    mirror(cloud.vertex.models, cloud.vertex.project.parent, registry, "tiny", IMAGE)


class Load:
    """Clients that ask an endpoint without a pause, until told to stop; every answer is kept."""

    def __init__(self, cloud: Cloud, name: str, clients: int = 2) -> None:
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


class EndpointWalk(Walk):
    """The commands in their order, under load."""

    def deployed(self) -> dict[str, int]:
        """Traffic of each version in the endpoint."""
        rows = json.loads(self.run("endpoint", "list", "--json", quiet=True))
        return {row["version"]: row["traffic"] for row in rows if row["endpoint"] == "digits"}

    def take(self) -> dict[str, Any]:
        """The whole way; returns what the test looks at."""
        seen: dict[str, Any] = {}
        self.run("models")
        self.run("endpoint", "create", "digits")
        self.run("endpoint", "deploy", "digits", "tiny", "--max-replicas", "2", "--dry-run")
        self.run("endpoint", "deploy", "digits", "tiny", "--max-replicas", "2")
        seen["first"] = self.transcript[-1]
        seen["alone"] = self.run("endpoint", "predict", "digits", json.dumps(ASK), quiet=True)
        self.run("endpoint", "deploy", "digits", "tiny", quiet=True, code=2)
        self.run("endpoint", "deploy", "digits", "tiny", "--if-new", quiet=True)
        self.note("two clients ask without a pause from here on")
        with Load(self.cloud, "digits") as load:
            self.run("endpoint", "deploy", "digits", "tiny@2", "--traffic", "40", "--machine", "t4")
            load.wait_for(40)
            seen["shares"] = self.deployed()
            self.run("endpoint", "traffic", "digits", "tiny@2=100")
            load.wait_for(20)
            seen["switched"] = load.answers[-5:]
            self.note("the challenger is worse than it seemed")
            self.run("endpoint", "rollback", "digits")
            seen["back"] = self.deployed()
            load.wait_for(10)
            self.run("endpoint", "undeploy", "digits", "tiny@2", code=2)
            seen["refused"] = self.transcript[-1]
            self.run("endpoint", "traffic", "digits", "tiny@1=100")
            self.run("endpoint", "undeploy", "digits", "tiny@2")
            load.wait_for(10)
        seen["answers"], seen["errors"] = load.answers, load.errors
        count = {name: sum(of == name for of, _ in load.answers) for name in ("tiny@1", "tiny@2")}
        said = ", ".join(f"{number} by {name}" for name, number in count.items())
        self.note(f"{len(load.answers)} requests were answered ({said}), {len(load.errors)} were not")
        self.run("endpoint", "scale", "digits", "tiny@1", "--min-replicas", "2", "--max-replicas", "5")
        seen["scaled"] = self.transcript[-1]
        self.run("endpoint", "delete", "digits", code=2)
        seen["kept"] = self.transcript[-1]
        self.run("endpoint", "delete", "digits", "--undeploy")
        return seen


def main() -> None:
    with GcsServer() as gcs, VertexServer(gcs) as server, tempfile.TemporaryDirectory() as folder:
        cloud = make_cloud(gcs, server)
        with mock.patch.dict(os.environ, gcs.environment):
            register(cloud, Path(folder, "models"))
        walk = EndpointWalk(cloud, Path(folder))
        with walk.kept_in(sys.argv[1]):
            walk.take()
            Path(folder, "asks.jsonl").write_text("".join(f'{{"class": {n}, "seed": {n}}}\n' for n in (0, 1, 2)))
            walk.note("and many at once, without an endpoint")
            walk.run("batch", "create", "tiny", "asks.jsonl", "--follow", "--interval", "0.2")


if __name__ == "__main__":
    main()
