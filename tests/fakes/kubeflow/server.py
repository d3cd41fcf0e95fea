"""The HTTP front of the installation: who is let in, routes, errors, the log of a pod.

What `kfp.Client` sends is read by the models it was generated with and by KFP's own protos: an unknown field, a missing
parameter or one of the wrong type is refused. With a store, runs are executed by the local runner; without one they are
kept and end in the state that the test sets.
"""

from __future__ import annotations

import json
import re
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import kfp_server_api as api
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.fakes.closing import Closing
from tests.fakes.gcs import GcsServer
from tests.fakes.kubeflow.execution import ENDED, Execution, now
from tests.fakes.kubeflow.messages import page, parse, to_json
from tests.fakes.kubeflow.metadata import SERVICE, Metadata
from tests.fakes.kubeflow.schedules import Schedules, refused
from tests.fakes.s3 import S3Server
from tests.fakes.vertex.errors import ServiceError, invalid, not_found
from tests.fakes.vertex.execution import Host
from tests.fakes.vertex.pipelines import check_parameters

_PAGE = "<!doctype html><title>Log in to Kubeflow</title>"
_IN_POD = {"KFP_POD_NAME": "pod", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
_LOGIN = {302: ("text/html", ""), 200: ("text/html; charset=utf-8", _PAGE), 401: ("text/plain", "Unauthorized")}


class KubeflowServer(Closing):
    """Experiments, runs and recurring runs.

    Args:
        store: where artifacts are; None: nothing is executed.
        environment: variables of the steps.
        preload: modules that steps need.
    """

    def __init__(
        self,
        store: GcsServer | S3Server | None = None,
        *,
        environment: Mapping[str, str] = {},
        preload: tuple[str, ...] = (),
    ) -> None:
        self.store, self.root = store, f"{store.scheme if store else 'gs://'}demo-bucket/v2/artifacts"
        self.secrets: dict[str, dict[str, str]] = {}  # of the namespace, with their keys
        self.runs: dict[str, Any] = {}
        self.experiments: dict[str, Any] = {}
        self.executions: dict[str, Execution] = {}
        self.metadata = Metadata()
        self.schedules = Schedules(self)
        self.lock = threading.RLock()
        self.state = "SUCCEEDED"
        self.version, self.multi_user, self.archived = "2.17.0", False, False
        self.token = ""  # if set, only requests that bear it are answered
        self.login = 403  # how the others are: 302 and 200 are login pages
        self.front_end = False  # whether this is svc/ml-pipeline-ui, which hands only a part on
        self._folder = tempfile.TemporaryDirectory(prefix="kubeflow-")
        self.cache, self.faults = Path(self._folder.name, "cache"), Path(self._folder.name, "faults")
        for folder in (self.cache, self.faults):
            folder.mkdir()
        self.host = Host(
            {**_IN_POD, **(store.environment if isinstance(store, GcsServer) else {}), **environment}, preload
        )
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._front())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def _front(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Front(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def _serve(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                code, kind, body = server.respond(self.command, self.path, content, self.headers)
                self.send_response(code)
                self.send_header("Content-Type", kind)
                if code == 302:
                    self.send_header("Location", f"{server.url}/dex/auth")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815

        return Front

    def respond(self, verb: str, target: str, content: bytes, headers: Any) -> tuple[int, str, bytes]:
        """(status, media type, body) of an answer."""
        path, query = urlsplit(target).path, dict(parse_qsl(urlsplit(target).query))
        let_in = not self.token or headers.get("Authorization") == f"Bearer {self.token}"
        if path == "/dex/auth":
            return 200, "text/html", _PAGE.encode()
        if not let_in and not path.startswith("/v1/projects/") and self.login in _LOGIN:
            kind, text = _LOGIN[self.login]
            return self.login, kind, text.encode()
        try:
            if not let_in and not path.startswith("/v1/projects/"):
                raise ServiceError("PERMISSION_DENIED", "Request is not authorized.")
            log = re.fullmatch(r"/apis/v1alpha1/runs/(.+)/nodes/(.+)/log", path)
            if log and not self.front_end:
                return 200, "text/plain", self._log(log[1], log[2], in_text=True)
            if path == "/k8s/pod/logs" and self.front_end:
                return 200, "text/plain", self._log(query["runid"], query["podname"])
            if path.startswith(SERVICE) and verb == "POST":
                if not self.front_end:
                    return 404, "text/plain", b"404 page not found"
                return 200, "application/grpc-web+proto", self.metadata.answer(path.removeprefix(SERVICE), content)
            if self.front_end and not path.startswith(("/apis/v1beta1/", "/apis/v2beta1/", "/v1/projects/")):
                return 200, "text/html", b"<!doctype html><title>Kubeflow Pipelines</title>"
            with self.lock:
                answer = to_json(self.answer(verb, path, query, content))
            return 200, "application/json", json.dumps(answer).encode()
        except ServiceError as error:
            told = {"error": error.message, "code": 3, "message": error.message}
            return error.http_status, "application/json", json.dumps(told).encode()

    def answer(self, verb: str, path: str, query: dict[str, str], content: bytes) -> Any:
        if path == "/apis/v2beta1/healthz":
            return {"commit_sha": "0", "tag_name": self.version, "multi_user": self.multi_user}
        if verb == "POST" and re.fullmatch(r"/v1/projects/kubeflow/locations/cluster/customJobs", path):
            return {"name": f"pods/{uuid.uuid4()}"}  # the runner's way to ask for a machine
        route = re.fullmatch(r"/apis/v2beta1/(experiments|runs|recurringruns)(?:/([^/:]+))?(?::(\w+))?", path)
        if not route:
            raise ServiceError("UNIMPLEMENTED", f"{verb} {path} is not served here.")
        identity, action = unquote(route[2] or ""), route[3] or ""
        if route[1] == "recurringruns":
            return self.schedules.answer(verb, identity, action, query, content)
        if route[1] == "experiments":
            return self._create_experiment(content) if verb == "POST" else self._list_experiments(query)
        if not identity:
            return self._create(content) if verb == "POST" else self._list(query)
        if identity not in self.runs:
            raise not_found(f"Run {identity}")
        if verb == "DELETE":
            return self._delete(identity)
        return self._act(identity, action) if action else self._told(self.runs[identity])

    def require_place(self, query: dict[str, str]) -> None:
        if self.multi_user and not (query.get("namespace") or query.get("experiment_id")):
            raise refused()
        if not self.multi_user and query.get("namespace"):
            raise invalid("In single-user mode, ListRequest cannot filter by namespace.")

    def _create_experiment(self, content: bytes) -> Any:
        made = parse("V2beta1Experiment", content)
        if self.multi_user and not made.namespace:
            raise invalid("Namespace is empty in multi-user mode.")
        if not self.multi_user and made.namespace:
            raise invalid("In single-user mode, CreateExperimentRequest shouldn't contain namespace.")
        made.experiment_id, made.created_at = str(uuid.uuid4()), now()
        self.experiments[made.experiment_id] = made
        return made

    def _list_experiments(self, query: dict[str, str]) -> Any:
        found, token, total = page(self.experiments.values(), query, lambda one: {"display_name": one.display_name})
        return api.V2beta1ListExperimentsResponse(experiments=found, total_size=total, next_page_token=token)

    def _list(self, query: dict[str, str]) -> Any:
        self.require_place(query)
        found, token, total = page(self.runs.values(), query, lambda run: {
            "display_name": run.display_name, "run_id": run.run_id, "recurring_run_id": run.recurring_run_id,
            "created_at": (run.created_at, list(self.runs).index(run.run_id)), "state": run.state})  # fmt: skip
        return api.V2beta1ListRunsResponse(
            runs=[self._told(run) for run in found], total_size=total, next_page_token=token
        )

    def _create(self, content: bytes) -> Any:
        run = parse("V2beta1Run", content)
        if not run.display_name:
            raise invalid("The run name is empty.")
        self.check(run)
        return self._told(self.begin(run))

    def check(self, run: Any) -> dict[str, Any]:
        """Refuses a run or recurring run that the server refuses; its specification."""
        sent = run.pipeline_spec or {}
        spec = sent.get("pipeline_spec", sent)
        try:
            json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
            json_format.ParseDict(sent.get("platform_spec", {}), pipeline_spec_pb2.PlatformSpec())
        except json_format.ParseError as error:
            raise invalid(f"Invalid pipeline spec: {error}") from None
        if run.experiment_id not in self.experiments:
            raise not_found(f"Experiment {run.experiment_id}")
        check_parameters(
            spec["root"].get("inputDefinitions", {}).get("parameters", {}),
            (run.runtime_config and run.runtime_config.parameters) or {},
        )
        return dict(spec)

    def begin(self, run: Any) -> Any:
        """Starts a run, where there is a store."""
        run.run_id, run.state, run.created_at = str(uuid.uuid4()), "PENDING", now()
        self.runs[run.run_id] = run
        if self.store is not None:
            self.executions[run.run_id] = made = Execution(self, run, self.check(run))
            made.start()
        return run

    def _told(self, run: Any) -> Any:
        if run.run_id in self.executions:
            details = self.executions[run.run_id].workflow.details(run.run_id)
            run.run_details = api.V2beta1RunDetails(task_details=details)
        elif self.store is None:
            run.state, run.finished_at = self.state, now() if self.state in ENDED else None
        return run

    def _act(self, identity: str, action: str) -> Any:
        run = self.runs[identity]
        if action == "terminate" and run.state not in ENDED:
            run.state = "CANCELING"
            threading.Thread(target=self.executions[identity].cancel, daemon=True).start()
        elif action == "retry" and run.state in ("FAILED", "CANCELED"):
            self.executions[identity].retry()
        else:
            raise invalid(f"Failed to {action} run {identity}: it is {run.state}.")
        return {}

    def _delete(self, identity: str) -> Any:
        """A run goes with its tasks, which are the cache's (a foreign key of the server's database)."""
        del self.runs[identity]
        if execution := self.executions.pop(identity, None):
            if execution.run.state not in ENDED:
                execution.cancel()
            for key in execution.cached:
                (self.cache / key).unlink(missing_ok=True)
        return {}

    def _log(self, run: str, pod: str, *, in_text: bool = False) -> bytes:
        lines = None if self.archived or run not in self.executions else self.executions[run].workflow.logs.get(pod)
        if lines is not None:
            return "".join(f"{line}\n" for line in lines).encode()
        if not in_text:
            raise ServiceError("INTERNAL", "Could not get main container logs: Error: no pod")
        return json.dumps({"error_message": f"pods {pod!r} not found", "error_details": "NotFound"}).encode()

    def finish(self, run: str, timeout: float = 120.0) -> str:
        """Waits until a run has ended; its state."""
        deadline = time.monotonic() + timeout
        while self.runs[run].state not in ENDED:
            assert time.monotonic() < deadline, f"{run} goes on"
            time.sleep(0.05)
        return str(self.runs[run].state)

    def fail(self, step: str, times: int = 1) -> None:
        """Lets the next attempts at a step end badly."""
        (self.faults / f"{step}.crash").write_text(str(times))

    def close(self) -> None:
        """Ends the server, and the runs that still go."""
        for execution in self.executions.values():
            if execution.run.state not in ENDED:
                execution.cancel()
        self.host.close()
        self._http.shutdown()
        self._http.server_close()
        self._folder.cleanup()
