"""More than is allowed, more than fits, and later than is useful."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import Served, served

SEED = {"name": "seed", "datatype": "INT64", "shape": [1], "data": [1]}
HEAD = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"count": 9}, "count: found 9; allowed: 1 to 8"),
        ({"count": 0}, "count: "),
        ({"steps": 101}, "steps: found 101; allowed: 1 to 100"),
        ({"class": "ten"}, "class: found 'ten'; allowed: zero, one, two; or a number from -1 to 2"),
        ({"class": 3}, "class: found 3"),
        ({"class": True}, "class: found true, which is neither a number nor a text"),
        ({"count": True}, "count: found true"),
        ({"class": 1.5}, "class: expected a class's name or number"),
        ({"class": ["one"]}, "class: expected a class's name or number"),
        ({"guidance": 51}, "guidance: "),
        ({"seed": -1}, "seed: "),
        ({"prompt": "x"}, "prompt: "),
    ],
)
def test_what_is_not_allowed_of_images_is_named(ask: dict[str, Any], message: str, images_server: Served) -> None:
    answer = images_server.post("/generate", ask, 422)
    assert list(answer) == ["error"]
    assert message in answer["error"]


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b'{"count": 1,}', "application/json", "body: not valid JSON at character 12"),
        (b'{"count": 1}', "application/x-www-form-urlencoded", "body: not read as JSON; send it with Content-Type"),
    ],
)
def test_a_body_that_is_no_json_is_told_why(body: bytes, kind: str, message: str, images_server: Served) -> None:
    answer = images_server.client.post("/generate", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 422
    assert message in answer.json()["error"]


def test_the_keys_that_are_allowed_are_those_that_are_documented(images_server: Served) -> None:
    answer = images_server.post("/predict", {"instances": [{}], "parameters": {"klass": 1}}, 422)
    assert "klass: there is no such key, found 1; did you mean 'class'? allowed: class, count" in answer["error"]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"prompt": "CAT"}, "found 'C' at character 0"),
        ({"prompt": "a ___ b ___"}, "more than one ___"),
        ({"prompt": "a ___ b", "gap": 16}, "gaps of at most 15 tokens"),
        ({"block": 4000}, "sample.block: found 4000; the model's context is"),
        ({"length": 1025}, "length: found 1025; allowed: 1 to 1024"),
        ({"class": "one"}, "class: "),
    ],
)
def test_what_is_not_allowed_of_text_is_named(ask: dict[str, Any], message: str, text_server: Served) -> None:
    assert message in text_server.post("/generate", ask, 422)["error"]


def test_bodies_and_answers_stay_below_the_limit_of_vertex_ai(images_server: Served, text_server: Served) -> None:
    assert "body" in text_server.post("/generate", {"prompt": "a" * 1_600_000}, 413)["error"]
    assert "body" in text_server.post("/predict", {"instances": [{"prompt": "a" * 1_600_000}]}, 413)["error"]
    assert images_server.get("/v2/health/live") == {"live": True}


def test_a_full_queue_refuses_and_says_when_to_come_again(shelf: Path) -> None:
    with served("tiny", "--registry", str(shelf / "registry"), "--queue", "6", "--batch", "2") as server:
        ask = {"seed": 1, "count": 2}
        with ThreadPoolExecutor(4) as pool:
            with server.held():
                waiting = [pool.submit(server.post, "/generate", ask) for _ in range(4)]
                server.gather(6)
                refused = server.client.post("/generate", json=ask)
                assert refused.status_code == 429
                assert int(refused.headers["retry-after"]) >= 1
                many = {"instances": [{"seed": seed} for seed in range(7)]}
                assert server.client.post("/predict", json=many).status_code == 429
            answers = [one.result() for one in waiting]
        assert all(answer == answers[0] for answer in answers)
        assert server.post("/generate", ask) == answers[0]
        assert len(server.post("/predict", many)["predictions"]) == 7  # more than the queue has room for, and none wait
        never = {"instances": [{"count": 40}, {"count": 40}]}
        assert "found 80 samples in all; allowed: 1 to 64" in server.post("/predict", never, 422)["error"]
        assert server.metric('textdiffusion_requests_total{route="/generate",status="429"}') == 1


def test_a_request_past_its_deadline_is_told_so_and_leaves_the_queue(images_server: Served) -> None:
    ask = {"seed": 77, "deadline": 0.2}
    with images_server.held():
        with ThreadPoolExecutor(3) as pool:  # the first is in the worker, the others wait
            late = [pool.submit(images_server.post, "/generate", {**ask, "count": 5}, 504) for _ in range(3)]
            assert all("not drawn within 0.2 s" in one.result()["error"] for one in late)
        assert images_server.metric("textdiffusion_queue_samples") == 0
    assert images_server.post("/generate", {"seed": 77})["seed"] == 77


def test_requests_are_counted_timed_and_logged_in_json(images_server: Served) -> None:
    images_server.post("/generate", {"seed": 5})  # what an earlier request left is drawn before
    before = images_server.metric("textdiffusion_samples_total")
    images_server.post("/generate", {"seed": 5, "count": 3})
    assert images_server.metric("textdiffusion_samples_total") == before + 3
    text = images_server.client.get("/metrics").text
    assert 'textdiffusion_model_info{model="tiny",version="1"} 1.0' in text
    assert 'textdiffusion_request_seconds_count{route="/generate"}' in text
    line = [line for line in images_server.lines if line["message"] == "request"][-1]
    assert {"time", "severity", "method", "path", "status", "seconds"} <= line.keys()
    assert images_server.other == []  # nothing but JSON


@pytest.mark.parametrize(
    ("path", "ask"),
    [
        ("/generate", {"class": "eyJ" * 300_000}),
        ("/generate", {"k" * 1_000_000: 1}),
        ("/predict", {"instances": [{"class": "eyJ" * 300_000}]}),
        ("/predict", {"instances": [{"seed": "https://hooks.slack.com/services/T " * 20_000}]}),
        ("/v2/models/tiny/infer", {"inputs": [{"name": "eyJ" * 300_000}]}),
        ("/v2/models/tiny/infer", {"inputs": [{**SEED, "shape": [1] * 200_000}]}),
    ],
)
def test_an_error_repeats_little_of_what_was_sent(path: str, ask: dict[str, Any], images_server: Served) -> None:
    answer = images_server.client.post(path, json=ask)
    assert answer.status_code == 422
    assert len(answer.content) < 5_000


def test_names_in_errors_command_no_terminal(images_server: Served) -> None:
    assert "\x9b" not in images_server.post("/generate", {"\x9b31m": 1}, 422)["error"]
    assert "\x1b" not in images_server.get("/v1/models/%1b[31m", 404)["error"]
    assert len(images_server.get(f"/v1/models/{'a' * 20_000}", 404)["error"]) < 5_000


@pytest.mark.parametrize("name", [["images"], {"a": 1}, None, 3])
def test_an_output_of_another_kind_is_named(name: object, images_server: Served) -> None:
    asked = {"inputs": [SEED], "outputs": [{"name": name}]}
    assert "outputs: found " in images_server.post("/v2/models/tiny/infer", asked, 422)["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://example.com"},
        {"origin": "null"},
        {"origin": "http://[::1"},
    ],
)
def test_a_page_of_another_site_cannot_ask(headers: dict[str, str], images_server: Served) -> None:
    for path, body in (("/generate", {"seed": 1}), ("/predict", {"instances": [{"seed": 1}]})):
        text = {"content-type": "text/plain", **headers}
        answer = images_server.client.post(path, content=json.dumps(body), headers=text)
        assert (answer.status_code, answer.json()) == (403, {"error": "pages of other sites may not ask"})


def test_its_own_pages_and_programs_can_ask(images_server: Served) -> None:
    origin = str(images_server.client.base_url).rstrip("/")
    for headers in (
        {"origin": origin},
        {"sec-fetch-site": "same-origin", "origin": origin},
        {"sec-fetch-site": "none"},
    ):
        assert images_server.client.post("/generate", json={"seed": 1}, headers=headers).status_code == 200


def test_no_page_of_the_service_loads_anything_from_elsewhere(images_server: Served) -> None:
    for path in ("/docs", "/redoc"):
        assert images_server.get(path, 404) == {"error": "Not Found"}


@pytest.mark.parametrize("length", [b"1500001", b"9" * 20])
def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(length: bytes, images_server: Served) -> None:
    with _connection(images_server) as client:
        client.sendall(HEAD + b"Content-Length: " + length + b"\r\n\r\n")
        assert b" 413 " in client.recv(65536)


def test_a_client_that_sends_or_reads_too_slowly_is_left(shelf: Path) -> None:
    registry = str(shelf / "registry")
    with served("tiny", "--registry", registry, "--deadline", "2") as server:
        for sent in (b"", b"POST /gen", HEAD, HEAD + b"Content-Length: 9\r\n\r\n{"):
            with _connection(server) as client:
                client.sendall(sent)
                assert client.recv(65536) == b""  # closed: without it, this would wait for ever
        with _connection(server) as client:  # on a connection that is kept after a request, too
            client.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += client.recv(65536)
            client.sendall(b"GET /v2 HT")
            assert client.recv(65536) == b""
        with _connection(server) as client:
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 2_000)  # 20 MB of answers, unread
            with pytest.raises(ConnectionError):
                while True:
                    client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.post("/generate", {"seed": 1, "count": 2})["seed"] == 1


def _connection(server: Served) -> socket.socket:
    made = socket.create_connection((server.client.base_url.host, server.client.base_url.port))
    made.settimeout(60)
    return made
