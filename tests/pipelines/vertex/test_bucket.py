"""Rules of a bucket that would stop a run later: the real client against a server that states them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pipelines.findings import Finding
from pipelines.vertex.buckets import bucket_findings
from pipelines.vertex.client import Project, Vertex

Look = Callable[..., tuple[list[Finding], list[str]]]
PLAIN = {"kind": "storage#bucket", "name": "mine", "location": "US-CENTRAL1", "locationType": "region"}


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Iterator[Look]:
    """What preflight finds at a bucket with these rules, and what was asked of the server."""
    rules: dict[str, Any] = {}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            pays = rules.get("billing", {}).get("requesterPays")
            if pays and "userProject" not in parse_qs(urlsplit(self.path).query):
                said = "Bucket is a requester pays bucket but no user project provided."
                self.say(400, {"error": {"code": 400, "message": said}})
            else:
                self.say(200, {"kind": "storage#object", "name": "x"} if "/o" in self.path else {**PLAIN, **rules})

        do_GET = do_POST = do_DELETE = answer  # noqa: N815  # names of the library

        def say(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)

    def found(payer: str = "", **stated: Any) -> tuple[list[Finding], list[str]]:
        rules.update(stated)
        project = Project("demo", "us-central1", "mine", endpoint=url, billing_project=payer)
        return list(bucket_findings(Vertex(project))), asked

    yield found
    server.shutdown()
    server.server_close()


def test_a_bucket_without_rules_is_probed_and_fine(look: Look) -> None:
    findings, asked = look()
    assert findings == []
    assert [line.split()[0] for line in asked] == ["GET", "POST", "DELETE"]


def test_a_bucket_that_keeps_its_objects_is_named_with_the_time_and_not_written_to(look: Look) -> None:
    (finding,), asked = look(retentionPolicy={"retentionPeriod": "864000", "isLocked": True})
    assert finding.problem
    assert "gs://mine keeps every object for 10 days (retention policy, locked)" in finding.text
    assert [line.split()[0] for line in asked] == ["GET"]


def test_a_bucket_that_holds_its_objects_is_named(look: Look) -> None:
    (finding,), _ = look(defaultEventBasedHold=True)
    assert finding.problem
    assert "event-based hold" in finding.text


def test_a_bucket_whose_requester_pays_asks_for_the_setting(look: Look) -> None:
    (finding,), _ = look(billing={"requesterPays": True})
    assert finding.problem
    assert "set billing_project" in finding.text


def test_who_is_named_pays_for_every_request(look: Look) -> None:
    (finding,), asked = look("payer", billing={"requesterPays": True})
    assert not finding.problem
    assert "payer pays" in finding.text
    assert len(asked) == 3
    assert all("userProject=payer" in line for line in asked)
