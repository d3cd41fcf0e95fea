"""More than is allowed, more than fits, and later than is useful."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import Served, served


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"count": 9}, "count: found 9; allowed: 1 to 8"),
        ({"count": 0}, "count: "),
        ({"steps": 101}, "steps: found 101; allowed: 1 to 100"),
        ({"class": "ten"}, "class: found 'ten'; allowed: zero, one, two; or a number from -1 to 2"),
        ({"class": 3}, "class: found 3"),
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
    ("ask", "message"),
    [
        ({"prompt": "CAT"}, "found 'C' at character 0"),
        ({"prompt": "a ___ b ___"}, "more than one ___"),
        ({"prompt": "a ___ b", "gap": 16}, "gaps of at most 15 tokens"),
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
                many = {"instances": [{"seed": 1}, {"seed": 2}]}
                assert server.client.post("/predict", json=many).status_code == 429
            answers = [one.result() for one in waiting]
        assert all(answer == answers[0] for answer in answers)
        assert server.post("/generate", ask) == answers[0]
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
