"""The HTTP front of the fake Vertex AI: threads, routes, errors, and the side services that a deployment touches."""

from __future__ import annotations

import json
import re
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from google.longrunning import operations_pb2
from google.protobuf import any_pb2, empty_pb2, json_format
from google.rpc import code_pb2

from tests.fakes.closing import Closing
from tests.fakes.gcs import GcsServer
from tests.fakes.vertex.batches import BatchService
from tests.fakes.vertex.endpoints import EndpointService
from tests.fakes.vertex.errors import ServiceError, invalid, not_found
from tests.fakes.vertex.execution import Host
from tests.fakes.vertex.jobs import JobService, LogService, Numbers, TensorboardService
from tests.fakes.vertex.metadata import MetadataService
from tests.fakes.vertex.models import ModelService
from tests.fakes.vertex.pipelines import PipelineService
from tests.fakes.vertex.platform import PlatformService
from tests.fakes.vertex.routes import Route, routes_of
from tests.fakes.vertex.schedules import ScheduleService
from tests.fakes.vertex.tuning import TuningService


class Operations:
    """Long-running operations; each answers `pending` polls before it is done."""

    def __init__(self) -> None:
        self.pending = 0
        self._operations: dict[str, operations_pb2.Operation] = {}
        self._polls: dict[str, int] = {}
        self._number = Numbers(6_000_000_000_000_000_001)

    def done(self, parent: str, response: Any, metadata: Any) -> operations_pb2.Operation:
        """An operation with this response (None: empty)."""
        operation = operations_pb2.Operation(name=f"{parent}/operations/{self._number()}", done=True)
        operation.metadata.Pack(type(metadata).pb(metadata))
        packed = any_pb2.Any()
        packed.Pack(empty_pb2.Empty() if response is None else type(response).pb(response))
        operation.response.CopyFrom(packed)
        self._operations[operation.name] = operation
        self._polls[operation.name] = 0
        return self.get(operation.name, poll=False)

    def run(
        self, parent: str, metadata: Any, work: Callable[[], Any], ready: Callable[[Any], Any], lock: Any
    ) -> operations_pb2.Operation:
        """An operation that is done when `work` is, which runs beside the server; `ready` makes its response."""
        name = f"{parent}/operations/{self._number()}"
        self._operations[name] = running = operations_pb2.Operation(name=name)
        running.metadata.Pack(type(metadata).pb(metadata))
        self._polls[name] = 0

        def follow() -> None:
            try:
                made = work()
                with lock:
                    response = ready(made)
                    running.response.Pack(type(response).pb(response))
            except ServiceError as error:
                running.error.code, running.error.message = code_pb2.Code.Value(error.status), error.message
            running.done = True

        threading.Thread(target=follow, daemon=True).start()
        return operations_pb2.Operation(name=name, metadata=running.metadata)

    def get(self, name: str, *, poll: bool = True) -> operations_pb2.Operation:
        if name not in self._operations:
            raise not_found(name)
        self._polls[name] += poll
        if self._polls[name] >= self.pending:
            return self._operations[name]
        return operations_pb2.Operation(name=name, metadata=self._operations[name].metadata)


class VertexServer(Closing):
    """A Vertex AI of one project, served over HTTP on this machine.

    Point the real clients at it with `api_endpoint=server.url` and the REST transport. Artifacts go to `gcs`.

    Args:
        gcs: The storage server that holds pipeline roots.
        project: Project id; resource names come back with its number, as from the service.
        preload: Modules that are imported once, before runs and their steps are forked.
        environment: Variables of the image that steps run in.
        hold: Keep new pipeline jobs PENDING instead of executing them.
        mount: A folder, with its slash, in which the buckets are really mounted; else each run has one of its own that
            is filled and flushed around its steps and has gcsfuse's rules.
    """

    def __init__(
        self,
        gcs: GcsServer,
        *,
        project: str = "demo",
        preload: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        hold: bool = False,
        mount: str = "",
    ) -> None:
        self.gcs, self.project, self.number = gcs, project, "123456789012"
        self.hold, self.mount = hold, mount
        self.image = {**gcs.environment, **(environment or {})}
        self.host = Host(self.image, preload)
        self.lock = threading.RLock()
        self.requests: list[tuple[str, str]] = []
        self.begun: int | None = None  # how often a custom job that exits non-zero is begun, if a probe has told
        self._folder = tempfile.TemporaryDirectory(prefix="vertex-")
        self.cache = Path(self._folder.name, "cache")
        self.faults = Path(self._folder.name, "faults")
        self.cache.mkdir()
        self.faults.mkdir()
        self.operations = Operations()
        self.jobs = JobService()
        self.tuning = TuningService(self.jobs)
        self.logs = LogService(project)
        self.metadata = MetadataService(self.operations, self.cache)
        self.models = ModelService(self.operations, self.bucket_exists)
        self.endpoints = EndpointService(self)
        self.batches = BatchService(self)
        self.schedules = ScheduleService(self)
        self.pipelines = PipelineService(self)
        self.platform = PlatformService(self)
        self.routes: list[Route] = [
            route
            for package, service in (
                ("pipeline_service", self.pipelines),
                ("schedule_service", self.schedules),
                ("job_service", self.jobs),
                ("job_service", self.tuning),
                ("job_service", self.batches),
                ("tensorboard_service", TensorboardService(self.jobs)),
                ("model_service", self.models),
                ("endpoint_service", self.endpoints),
                ("prediction_service", self.endpoints),
                ("metadata_service", self.metadata),
            )
            for route in routes_of(package, service)
        ]
        server = self

        class Front(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def _serve(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                code, body = server.answer(self.command, self.path, content, self.headers.get("Accept", ""))
                self.send_response(code)
                self.send_header("Content-Type", "application/json; charset=UTF-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Front)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def answer(self, verb: str, target: str, content: bytes, accept: str = "") -> tuple[int, bytes]:
        """Status and JSON body for one request."""
        split = urlsplit(target)
        path = self.identified(unquote(split.path))
        self.requests.append((verb, path))
        try:
            body = self.identified(content.decode())
            with self.lock:
                query = split.query.replace(f"projects%2F{self.number}%2F", f"projects%2F{self.project}%2F")
                result = self._dispatch(verb, path, query, body.encode(), accept)
            if callable(result):  # what takes its time, and lets others be served meanwhile
                result = result()
            with self.lock:
                text = result if isinstance(result, str) else _to_json(result)
            return 200, self._numbered(text).encode()
        except ServiceError as error:
            return error.http_status, json.dumps(error.to_json()).encode()

    def _dispatch(self, verb: str, path: str, query: str, content: bytes, accept: str) -> Any:
        for route in self.routes:
            match = route.pattern.fullmatch(path)
            if match and route.verb == verb:
                return route.answer(route.parse(match, query, content))
        operation = re.fullmatch(r"/(?:v1|ui)/(projects/.+/operations/\d+)", path)
        if operation and verb == "GET":
            return self.operations.get(operation[1])
        if (verb, path) == ("POST", "/v2/entries:list"):
            try:
                return json.dumps(self.logs.list_entries(json.loads(content)))
            except json.JSONDecodeError as error:
                raise invalid(str(error)) from None
        return json.dumps(self.platform.answer(verb, path, query, content, accept))

    def identified(self, text: str) -> str:
        return re.sub(rf"projects/{self.number}/(?!global/networks/)", f"projects/{self.project}/", text)

    def _numbered(self, text: str) -> str:
        """Resource names carry the project's number on the way out, as the service's do."""
        return text.replace(f"projects/{self.project}/locations", f"projects/{self.number}/locations")

    def bucket_exists(self, name: str) -> bool:
        try:
            with urllib.request.urlopen(f"{self.gcs.url}/storage/v1/b/{name}", timeout=10):
                return True
        except urllib.error.HTTPError:
            return False

    def fail(self, step: str, kind: str, *, times: int = 1) -> None:
        """Lets a step meet a fault: `crash`, `preempt` (killed and restarted) or `stockout` (no such machine free)."""
        (self.faults / f"{step}.{kind}").write_text(str(times))

    def set_to(self, probe: Mapping[str, Any]) -> None:
        """Behaves as the service did when `textdiffusion probe` looked at it: `probe` is its probe.json.

        A custom job that exits with a status other than 0 is begun as often as there.
        """
        self.begun = max(1, int(probe["exit_2"]["begun"]))

    def wait(self, timeout: float = 120.0) -> None:
        """Until no pipeline job is running."""
        for execution in list(self.pipelines.executions.values()):
            execution.wait(timeout)

    def close(self) -> None:
        for execution in self.pipelines.executions.values():
            execution.cancel()
        self.endpoints.close()
        self.host.close()
        self._http.shutdown()
        self._http.server_close()
        self._folder.cleanup()


def _to_json(message: Any) -> str:
    if message is None:
        return "{}"
    plain = message if isinstance(message, operations_pb2.Operation) else type(message).pb(message)
    return json_format.MessageToJson(plain, indent=None)
