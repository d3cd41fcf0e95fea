"""A field that is text keeps what was written; a key that is there twice is refused by its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core import yamltext
from core.config import TrainConfig, read_yaml, validate, with_overrides
from core.errors import UserError
from core.images.config import ImageData, ImageModel
from core.text.config import TextSample
from factory.search import SearchParameter
from pipelines.machines import Machine
from pipelines.settings import Settings

ODD = [
    "123",
    "1e3",
    "no",
    "2024-01-01",
    "2024-02-30",
    "123456789012",
    "1_000",
    "007",
    "0x1f",
    "true",
    ".5",
    "nan",
    "off",
]


@pytest.mark.parametrize("text", ODD)
def test_a_text_field_keeps_what_was_written(text: str) -> None:
    written = {"source": "idx", **yamltext.parse(f"data_dir: {text}", "x")}
    assert validate(ImageData, written, "x").data_dir == text
    over = with_overrides({"data": {"source": "idx"}}, [f"data.data_dir={text}"])
    assert validate(ImageData, over["data"], "x").data_dir == text


@pytest.mark.parametrize("text", ["null", "~", ""])
def test_nothing_is_still_nothing_where_the_field_allows_it(text: str) -> None:
    assert validate(Settings, yamltext.parse(f"project: {text}", "x"), "x").project is None


@pytest.mark.parametrize("values", [{"minutes": True}, {"examples": 8, "betas": [True, 0.9]}])
def test_truth_of_a_program_is_no_number_either(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"valid number.*'True'"):
        validate(TrainConfig, values, "train")
    assert validate(TrainConfig, {"examples": 8, "deterministic": True}, "train").deterministic


@pytest.mark.parametrize("text", ["examples: yes", "learning_rate: on", "examples: 100\nseed: true"])
def test_yes_is_no_number(text: str) -> None:
    with pytest.raises(UserError, match=r"valid (integer|number)"):
        validate(TrainConfig, yamltext.parse(text, "x"), "x")


def test_other_fields_are_what_yaml_says() -> None:
    text = "{machine_type: 8, cpu: 8, memory_gb: 30, node_selector: {pool: 7},"
    text += " usd_per_hour: {machine: 1e0, verified: yes, date: 2024-01-01, source: 1.50}}"
    machine = validate(Machine, yamltext.parse(text, "x"), "x")
    price = machine.usd_per_hour
    assert (machine.machine_type, machine.cpu, machine.node_selector) == ("8", 8, {"pool": "7"})
    assert price is not None
    assert (price.machine, price.verified, price.date.year, price.source) == (1.0, True, 2024, "1.50")
    assert validate(TextSample, yamltext.parse("prompts: [1, no, 2.50]", "x"), "x").prompts == ("1", "no", "2.50")
    assert validate(SearchParameter, yamltext.parse("values: [1, 2.5, muon]", "x"), "x").values == (1, 2.5, "muon")
    assert validate(ImageData, {"channels": yamltext.parse("1", "x")}, "x").channels == 1
    network = validate(ImageModel, yamltext.parse("network: {name: unet, attention: no}", "x"), "x").network
    assert network.model_dump()["attention"] is False


@pytest.mark.parametrize("text", ["1e-3", "0.001"])
def test_a_number_is_a_number_however_it_is_written(text: str) -> None:
    assert yamltext.plain(with_overrides({}, [f"train.learning_rate={text}"])) == {"train": {"learning_rate": 0.001}}


@pytest.mark.parametrize(
    ("text", "line", "first"),
    [
        ("train: {seed: 1}\nsample: {}\ntrain: {seed: 2}\n", 3, 1),
        ("train:\n  seed: 1\n  seed: 2\n", 3, 2),
        ("a: [{x: 1, 'x': 2}]", 1, 1),
        ("no: 1\nno: 2\n", 2, 1),
    ],
)
def test_a_key_that_is_there_twice_is_named_with_its_line(text: str, line: int, first: int, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"job\.yaml: line {line}: key '\w+' is there twice, first in line {first}"):
        read_yaml(tmp_path / "job.yaml")


@pytest.mark.parametrize("text", ["? [a]\n: 1", "<<: {a: 1}\na: 2", "=: 1"])
def test_odd_keys_are_names_or_refused(text: str) -> None:
    try:
        assert all(isinstance(key, str) for key in yamltext.parse(text, "x"))
    except UserError as error:
        assert "a key must be a name" in str(error)
