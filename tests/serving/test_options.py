"""What the command line, a container's variables and the measured settings make of a service."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from core.errors import UserError
from factory.finding import find_model
from serving.asks import ImageAsk, TextAsk, order_of
from serving.card import ModelCard, read_card
from serving.errors import LargeError
from serving.options import Options, options_of
from serving.predictions import limited
from tests.serving.conftest import in_a_loop


def test_the_command_line_goes_before_the_variables_of_a_container() -> None:
    told = {"AIP_HTTP_PORT": "8081", "AIP_STORAGE_URI": "gs://b/m", "AIP_HEALTH_ROUTE": "/h", "AIP_PREDICT_ROUTE": "/p"}
    options = options_of({"port": None}, told)
    assert (options.model, options.host, options.port) == ("gs://b/m", "0.0.0.0", 8081)
    assert (options.health_route, options.predict_route) == ("/h", "/p")
    options = options_of({"model": "digits", "port": 7, "host": "::1"}, told)
    assert (options.model, options.host, options.port) == ("digits", "::1", 7)
    with pytest.raises(UserError, match="no model"):
        options_of({}, {})
    with pytest.raises(UserError, match="serve: port"):
        options_of({"model": "digits"}, {"AIP_HTTP_PORT": "eighty"})


def card(shelf: Path, name: str, tmp_path: Path, **more: object) -> tuple[ModelCard, Options]:
    options = options_of({"model": name, **more}, {})
    return read_card(find_model(name, str(shelf / "registry"), None, tmp_path), name, options), options


@in_a_loop
async def test_steps_are_the_requests_then_the_services_then_those_that_were_measured(
    shelf: Path, tmp_path: Path
) -> None:
    measured, options = card(shelf, "tiny", tmp_path)
    assert order_of(ImageAsk(), measured, options).section["sampler"] == "dpmpp_sde"
    assert measured.steps == 4
    served, options = card(shelf, "tiny", tmp_path, steps=7, max_steps=5)
    assert served.steps == 7
    assert order_of(ImageAsk(), served, options).section["steps"] == 7
    assert order_of(ImageAsk(steps=3), served, options).section["steps"] == 3
    with pytest.raises(UserError, match="steps: found 8; allowed: 1 to 7"):  # more than max_steps, as it is served so
        order_of(ImageAsk(steps=8), served, options)


def test_a_copy_of_a_versions_folder_is_served_as_that_version_in_its_measured_manner(
    shelf: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(shelf / "registry" / "tiny" / "versions" / "00002", copied)
    served, _ = card(shelf, f"{copied}/", tmp_path)  # AIP_STORAGE_URI may end so
    assert (served.version, served.steps) == ("2", 4)
    (copied / "model" / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"tiny@2: model/weights.safetensors is damaged"):
        card(shelf, str(copied), tmp_path)


@in_a_loop
async def test_texts_share_a_batch_only_if_their_prompts_are_as_long(shelf: Path, tmp_path: Path) -> None:
    words, options = card(shelf, "words", tmp_path)

    def key(prompt: str, **more: float) -> str:
        return order_of(TextAsk(prompt=prompt, **more), words, options).key  # type: ignore[arg-type]

    assert key("the cat") == key("the dog") != key("the cats")
    assert key("the ___ cat") == key("the ___ dog") != key("the cat ___")
    assert key("the cat") != key("the cat", temperature=0.5)


def test_an_answer_beyond_the_limit_of_vertex_ai_is_refused() -> None:
    assert limited({"predictions": ["a" * 1_000_000]}).status_code == 200
    with pytest.raises(LargeError, match="ask for fewer samples"):
        limited({"predictions": ["a" * 1_600_000]})
