"""A Kubeflow Pipelines v2 API server on this machine, as far as submitting a run goes.

What `kfp.Client` sends is read by KFP's own protos: an unknown field, a missing parameter or one of the wrong type is
refused. Runs are kept and end in the state that the test sets.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.fakes.vertex.errors import ServiceError, invalid, not_found
from tests.fakes.vertex.pipelines import check_parameters

_CREATED = "2026-01-01T00:00:00Z"


class KubeflowServer:
    """Experiments and runs over HTTP."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.state = "SUCCEEDED"
        self.token = ""  # if set, only requests that bear it are answered
        self._number = itertools.count(1)
        server = self

        class Front(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def _serve(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
                        raise ServiceError("PERMISSION_DENIED", "Request is not authorized.")
                    code, answer = 200, server.answer(self.command, urlsplit(self.path).path, content)
                except ServiceError as error:
                    code, answer = error.http_status, {"error": error.message, "code": 3, "message": error.message}
                body = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _serve  # noqa: N815

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Front)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def answer(self, verb: str, path: str, content: bytes) -> dict[str, Any]:
        if path == "/apis/v2beta1/healthz":
            return {"multi_user": False}
        if path == "/apis/v2beta1/experiments" and verb == "GET":
            return {"experiments": list(self.experiments.values()), "total_size": len(self.experiments)}
        if path == "/apis/v2beta1/experiments":
            made = json.loads(content)
            made |= {"experiment_id": f"experiment-{next(self._number)}", "created_at": _CREATED}
            self.experiments[made["experiment_id"]] = made
            return made
        if path == "/apis/v2beta1/runs" and verb == "POST":
            return self._run(json.loads(content))
        if found := re.fullmatch(r"/apis/v2beta1/runs/(.+)", path):
            if found[1] not in self.runs:
                raise not_found(found[1])
            return {**self.runs[found[1]], "state": self.state, "finished_at": _CREATED}
        raise ServiceError("UNIMPLEMENTED", f"{verb} {path} is not served here.")

    def _run(self, run: dict[str, Any]) -> dict[str, Any]:
        spec = run.get("pipeline_spec", {})
        spec = spec.get("pipeline_spec", spec)
        try:
            json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        except json_format.ParseError as error:
            raise invalid(f"Invalid pipeline spec: {error}") from None
        if run.get("experiment_id") not in self.experiments:
            raise not_found(f"Experiment {run.get('experiment_id')}")
        check_parameters(
            spec["root"].get("inputDefinitions", {}).get("parameters", {}),
            run.get("runtime_config", {}).get("parameters", {}),
        )
        run |= {"run_id": f"run-{next(self._number)}", "state": "PENDING", "created_at": _CREATED}
        self.runs[run["run_id"]] = run
        return run

    def __enter__(self) -> KubeflowServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
