"""Samples over HTTP are those of `generate`, whatever shares their batch."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from local.generating import generate
from tests.serving.conftest import CLASSES, Served, served

IMAGES = [
    {"class": "two", "seed": 3},
    {"seed": 4, "count": 5},
    {"class": 0, "seed": 3, "count": 2},
    {"class": -1, "seed": 8},
    {"class": "one", "seed": 9, "steps": 3},
    {"class": "two", "seed": 10, "guidance": 1},
    {"class": "two", "seed": 11, "count": 3},
]
TEXTS = [
    {"prompt": "the cat ", "seed": 3},
    {"prompt": "the dog ", "seed": 4, "count": 3},
    {"prompt": "", "seed": 4, "count": 2},
    {"prompt": "a cat", "seed": 5, "length": 20},
    {"prompt": "the ___ sat", "seed": 6, "count": 2},
    {"prompt": "one ___ ran", "seed": 7, "gap": 3},
    {"prompt": "the cat ", "seed": 8, "temperature": 0.5},
    {"prompt": "the cat ", "seed": 9, "block": 16, "steps": 8},
]


def pixels(sample: dict[str, Any]) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(base64.b64decode(sample["png"]))) as opened:
        return np.asarray(opened)


@pytest.mark.parametrize("ask", IMAGES)
def test_images_are_those_of_generate(ask: dict[str, Any], images_server: Served, shelf: Path, tmp_path: Path) -> None:
    label = ask.get("class")
    number = CLASSES.index(label) if isinstance(label, str) else label
    wishes = {"count": 1, **{key: value for key, value in ask.items() if key != "class"}}
    generate("tiny", str(shelf / "registry"), wishes, label=number, out=tmp_path / "out")
    with np.load(tmp_path / "out" / "samples.npz") as drawn:
        wanted, labels = drawn["images"], drawn["labels"]
    answer = images_server.post("/generate", ask)
    assert (answer["model"], answer["version"], answer["seed"]) == ("tiny", "1", ask["seed"])
    assert [one["class"] for one in answer["samples"]] == [CLASSES[i] if i >= 0 else None for i in labels]
    assert np.array_equal(np.stack([pixels(one) for one in answer["samples"]]), wanted)
    arrays = images_server.post("/generate", {**ask, "format": "array"})["samples"]
    assert np.array_equal([one["array"] for one in arrays], wanted)


@pytest.mark.parametrize("ask", TEXTS)
def test_texts_are_those_of_generate(ask: dict[str, Any], text_server: Served, shelf: Path) -> None:
    wishes = {"count": 1, **{key: value for key, value in ask.items() if key != "prompt"}}
    wanted = generate("words", str(shelf / "registry"), wishes, prompt=ask["prompt"])["texts"]
    assert [one["text"] for one in text_server.post("/generate", ask)["samples"]] == wanted


@pytest.mark.parametrize("kind", ["images", "text"])
def test_what_shares_a_batch_changes_no_sample(kind: str, images_server: Served, text_server: Served) -> None:
    server, asks = (images_server, IMAGES) if kind == "images" else (text_server, TEXTS)
    alone = [server.post("/generate", ask) for ask in asks]
    before = server.metric("textdiffusion_batch_samples_count")
    with ThreadPoolExecutor(2 * len(asks)) as pool:
        with server.held():
            answers = [pool.submit(server.post, "/generate", ask) for ask in [*asks, *reversed(asks)]]
            rows = 2 * sum(int(ask.get("count", 1)) for ask in asks)  # type: ignore[call-overload]
            server.gather(rows - server_tile(kind))
        together = [answer.result() for answer in answers]
    assert together == [*alone, *reversed(alone)]
    batches = server.metric("textdiffusion_batch_samples_count") - before
    assert batches < rows / 1.5  # they did share


def server_tile(kind: str) -> int:
    """Rows of the first batch, which wait no more."""
    return 4 if kind == "images" else 16


def test_a_model_that_draws_its_noise_at_once_is_served_too(shelf: Path) -> None:
    with served(str(shelf / "masked")) as server:
        wanted = generate(str(shelf / "masked"), "", {"count": 3, "seed": 5})["texts"]
        assert [one["text"] for one in server.post("/generate", {"count": 3, "seed": 5})["samples"]] == wanted
        assert "need a diffusion model" in server.post("/generate", {"prompt": "a"}, 422)["error"]


def test_a_seed_that_is_left_out_is_named_and_gives_the_sample_again(images_server: Served) -> None:
    first, other = (images_server.post("/generate", {"class": "one"}) for _ in range(2))
    assert first["seed"] != other["seed"]
    assert images_server.post("/generate", {"class": "one", "seed": first["seed"]}) == first


def events(server: Served, ask: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    with server.client.stream("POST", "/generate/stream", json=ask) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        blocks = "".join(answer.iter_text()).strip().split("\n\n")
    lines = [block.split("\n") for block in blocks]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in lines]


def test_an_image_is_seen_to_come_out_of_noise(images_server: Served) -> None:
    ask = {"class": "two", "seed": 3, "count": 2}
    *steps, (name, last) = events(images_server, ask)
    assert name == "done"
    assert last == images_server.post("/generate", ask)
    assert [(step["step"], step["index"]) for _, step in steps] == [(i, j) for i in range(4) for j in range(2)]
    sigmas = [step["sigma"] for _, step in steps]
    assert sigmas == sorted(sigmas, reverse=True)
    assert pixels(steps[0][1]).std() > 0


def test_a_text_is_seen_to_come_out_of_noise(text_server: Served) -> None:
    ask = {"prompt": "the ___ sat", "seed": 3}
    *steps, (name, last) = events(text_server, ask)
    assert name == "done"
    assert last == text_server.post("/generate", ask)
    assert len(steps) == 4
    assert all(step["text"].startswith("the ") for _, step in steps)


def test_a_stream_ends_with_the_error(images_server: Served) -> None:
    with images_server.held():
        ((name, last),) = events(images_server, {"deadline": 0.1})
    assert name == "error"
    assert last["status"] == 504
