"""Requests on their way: as JSON to other processes and back, and to the code of a modality."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from core.errors import UserError
from core.modality import modality, run
from core.requests import (
    EvaluateRequest,
    PrepareDataRequest,
    Request,
    SampleRequest,
    TrainJudgeRequest,
    TrainRequest,
    parse_request,
)

A, B = Path("a"), Path("b/c d")
REQUESTS: list[Request] = [
    PrepareDataRequest(modality="text", data={"source": "file", "limit": None}, out=A),
    TrainJudgeRequest(modality="images", evaluate={}, dataset=A, out=B),
    TrainRequest(modality="images", model={}, train={"betas": [0.9, 0.99], "seed": 2**62}, dataset=A, out=B),
    TrainRequest(
        modality="text", model={}, train={}, dataset=A, out=B, objective="masked", work="gs://w", warm_start=A
    ),
    SampleRequest(modality="text", sample={"prompts": ["\u2028 é"]}, model=A, out=B, autoregressive=A),
    EvaluateRequest(modality="images", evaluate={}, dataset=A, judge=B, model=A, samples=B, out=A),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: one.step)
def test_a_request_is_the_same_after_its_way_to_another_process(request_: Request) -> None:
    again = parse_request(request_.model_dump_json())
    assert again == request_
    assert type(again) is type(request_)
    assert isinstance(again.out, Path)


def test_a_request_cannot_be_changed_on_its_way() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        REQUESTS[0].out = B  # type: ignore[misc]


def test_the_modality_that_a_request_names_validates_its_sections(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data: source: "):
        run(PrepareDataRequest(modality="images", data={"source": "nowhere"}, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_unknown_modality_is_one_line() -> None:
    with pytest.raises(UserError, match="modality: found 'sound'; allowed: images, text"):
        modality("sound")
