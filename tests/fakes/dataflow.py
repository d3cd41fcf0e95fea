"""A Dataflow service on this machine: it takes jobs as Google's own client sends them, and does what they say.

The job is read by Google's message types, which refuse unknown fields. Its pipeline is fetched from where the client
staged it, and run by Beam's local runner in place of the containers that it names.

    with DataflowServer() as server:
        ...                      # dataflow_endpoint: server.url
        server.jobs[0].environment.service_account_email
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class DataflowServer:
    """Args:
    runs: the jobs; otherwise they go on until they are cancelled.
    refuses: text of the refusal of every job; empty: none.
    """

    def __init__(self, *, runs: bool = True, refuses: str = "") -> None:
        self.jobs: list[Any] = []
        self.states: list[str] = []
        self.begun = threading.Event()
        self._runs, self._refuses = runs, refuses
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self._answer(*outer.create(self.rfile.read(int(self.headers["Content-Length"]))))

            def do_PUT(self) -> None:
                self._answer(*outer.update(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

            def do_GET(self) -> None:
                self._answer(200, {} if "/messages" in self.path or "/metrics" in self.path else outer.state())

            def _answer(self, code: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> DataflowServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Beam's client speaks plain HTTP to a server of this name alone."""
        return f"http://localhost:{self._server.server_port}"

    def create(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """jobs.create."""
        from google.cloud import dataflow

        if self._refuses:
            return 403, {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": self._refuses}}
        job = dataflow.Job.from_json(body.decode(), ignore_unknown_fields=False)
        self.jobs.append(job)
        self.states.append("JOB_STATE_RUNNING")
        self.begun.set()
        if self._runs:
            threading.Thread(target=self._run, args=(len(self.jobs) - 1,), daemon=True).start()
        return 200, self.state()

    def update(self, changed: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """jobs.update, which cancels."""
        assert changed["requestedState"] in ("JOB_STATE_CANCELLED", 5), changed
        self.states[-1] = "JOB_STATE_CANCELLED"
        return 200, self.state()

    def state(self) -> dict[str, Any]:
        """jobs.get, of the newest."""
        job = self.jobs[-1]
        return {"id": f"job-{len(self.jobs)}", "name": job.name, "currentState": self.states[-1],
                "clientRequestId": job.client_request_id, "projectId": "demo", "location": "us-central1",
                "type": "JOB_TYPE_BATCH"}  # fmt: skip

    def _run(self, index: int) -> None:
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.portability.api import beam_runner_api_pb2 as api
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner

        from core import storage

        options = dict(self.jobs[index].environment.sdk_pipeline_options)["options"]
        pipeline = api.Pipeline.FromString(storage.read_bytes(options["pipelineUrl"]))
        for environment in pipeline.components.environments.values():
            environment.CopyFrom(api.Environment(urn="beam:env:embedded_python:v1",
                                                 capabilities=environment.capabilities))  # fmt: skip
        try:
            FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([])).wait_until_finish()
            self.states[index] = "JOB_STATE_DONE"
        except Exception:
            self.states[index] = "JOB_STATE_FAILED"
            raise
