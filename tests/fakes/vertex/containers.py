"""The container of a deployed version: the image's own program, started as the service does, and asked over HTTP."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from google.cloud import aiplatform_v1 as v1

from tests.fakes import unprivileged
from tests.fakes.vertex.errors import ServiceError
from tests.fakes.vertex.execution import REPOSITORY

PROGRAM = "textdiffusion"  # the entry point of the image
LARGEST = 1_500_000  # bytes of a request and of an answer of a custom container
PATIENCE = 180.0  # seconds until a container answers its health checks
COPIES = "vertex-managed"  # the service's own bucket, from which models are deployed


class Container:
    """One replica of a model server.

    Args:
        spec: what the version says of its container.
        storage: where the service keeps its copy of the version's files.
        environment: variables of the image, and those that the service sets.
    """

    def __init__(self, spec: v1.ModelContainerSpec, storage: str, environment: Mapping[str, str]) -> None:
        with socket.socket() as probe:  # a container has ports of its own; processes on one machine do not
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self._health, self._predict = spec.health_route, spec.predict_route
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._idle = threading.Condition()
        self._asked = 0
        given = {item.name: item.value for item in spec.env}
        given |= {"AIP_HTTP_PORT": str(port), "AIP_HEALTH_ROUTE": self._health, "AIP_PREDICT_ROUTE": self._predict}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TEXTDIFFUSION_", "AIP_"))}
        path = os.pathsep.join(filter(None, [environment.get("PYTHONPATH", ""), str(REPOSITORY)]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.vertex.containers", *spec.command, *spec.args],
            env={**kept, **environment, **given, "AIP_STORAGE_URI": storage, "PYTHONPATH": path},
            cwd=REPOSITORY, stdout=self._log, stderr=self._log,
        )  # fmt: skip

    def wait(self) -> None:
        """Until it is healthy.

        Raises:
            ServiceError: its process ended first, or it never was.
        """
        end = time.monotonic() + PATIENCE
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > end:
                self.close()
                said = f"Model server terminated: model server container terminated: {self.said()}"
                raise ServiceError("FAILED_PRECONDITION", said)
            time.sleep(0.05)

    def said(self) -> str:
        """The end of its log."""
        self._log.seek(0)
        return " ".join(self._log.read()[-600:].split())

    def reserve(self) -> None:
        """Announces a request, which `close` waits for."""
        with self._idle:
            self._asked += 1

    def predict(self, body: Mapping[str, Any]) -> Any:
        """The container's answer to a reserved request.

        Raises:
            ServiceError: the container refused it, in its own words; or one of the two is too large.
        """
        try:
            return json.loads(self._post(json.dumps(body).encode()))
        finally:
            with self._idle:
                self._asked -= 1
                self._idle.notify_all()

    def close(self) -> None:
        """Ends it as the service does: after its last request, by SIGTERM."""
        with self._idle:
            self._idle.wait_for(lambda: not self._asked, timeout=60)
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self._url + self._health, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _post(self, body: bytes) -> bytes:
        if len(body) > LARGEST:
            raise ServiceError("INVALID_ARGUMENT", f"The request size ({len(body)} bytes) exceeds 1.500MB limit.")
        request = urllib.request.Request(self._url + self._predict, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                read = bytes(answer.read())
        except urllib.error.HTTPError as error:
            status = {429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}.get(error.code, "INVALID_ARGUMENT")
            raise ServiceError(status if error.code != 500 else "INTERNAL", error.read().decode()) from None
        if len(read) > LARGEST:
            raise ServiceError("INTERNAL", f"The response size ({len(read)} bytes) exceeds 1.500MB limit.")
        return read


def main(arguments: list[str]) -> None:
    """Becomes the container's program, as the image's own user."""
    if arguments[:1] != [PROGRAM]:
        sys.exit(f"exec: {arguments[:1]}: executable file not found in $PATH")
    unprivileged.become()
    room, rest = ("serving", arguments[2:]) if arguments[1:2] == ["serve"] else ("components", arguments[1:])
    os.execv(sys.executable, [sys.executable, "-m", room, *rest])


if __name__ == "__main__":
    main(sys.argv[1:])
