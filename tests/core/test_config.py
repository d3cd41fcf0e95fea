from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import yamltext
from core.config import (
    TrainConfig,
    canonical_json,
    config_hash,
    merge,
    parse_override,
    parse_yaml,
    read_yaml,
    validate,
    with_overrides,
)
from core.errors import UserError
from core.images.config import ImageData
from core.text.config import TextData


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"examples": 10, "batch_siz": 3}, "batch_siz"),
        ({"examples": 10, "batch_size": "many"}, "batch_size"),
        ({"examples": 10, "batch_size": 10**12}, "batch_size"),
        ({"examples": 10, "minutes": 1}, "exactly one"),
        ({}, "exactly one"),
        ({"examples": 10, "learning_rate": float("nan")}, "learning_rate"),
        ({"examples": 10, "betas": [0.9, 1.0]}, "betas"),
        ("text", "train"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_the_key(values: object, says: str) -> None:
    with pytest.raises(UserError) as error:
        validate(TrainConfig, values, "my.yaml: train")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("my.yaml: train")
    assert says in str(error.value)


def test_an_unknown_key_is_answered_with_the_keys_there_are() -> None:
    with pytest.raises(UserError, match=r"allowed: .*batch_size.*seed"):
        validate(TrainConfig, {"examples": 1, "batchsize": 2}, "x")


def test_keys_that_do_not_go_together_are_named_without_all_the_others() -> None:
    with pytest.raises(UserError) as error:
        validate(ImageData, {"class_names": ["cat", "cat"], "resolution": 32}, "own.yaml: data")
    assert str(error.value) == "own.yaml: data: class_names has a name twice"


def test_a_text_that_does_not_match_is_answered_in_words_and_not_by_a_pattern() -> None:
    with pytest.raises(UserError, match=r"^x: background: allowed is white, black or '#rrggbb'.*found 'blue'$"):
        validate(ImageData, {"background": "blue"}, "x")
    with pytest.raises(UserError, match=r"^x: suffixes.0: allowed is how the files .* end.*found 'txt'"):
        validate(TextData, {"suffixes": ["txt"]}, "x")


def test_whole_numbers_may_come_as_doubles() -> None:
    assert validate(TrainConfig, {"examples": 640.0, "batch_size": 16.0}, "x").batch_size == 16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.batch_size=64", (["train", "batch_size"], 64)),
        ("train.learning_rate=1e-3", (["train", "learning_rate"], 1e-3)),
        ("data.data_dir=gs://b/p=q", (["data", "data_dir"], "gs://b/p=q")),
        ("sample.labels=[1, 2]", (["sample", "labels"], [1, 2])),
        ("train.compile=true", (["train", "compile"], True)),
    ],
)
def test_overrides_read_their_value_as_yaml(text: str, expected: tuple) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize(
    "text", ["", "=", "a", ".=1", "a.b", "a..b=1", "a b=1", "a={", "a=.inf", "a=nan", "a=" + "9" * 5000]
)
def test_a_bad_override_is_one_short_line(text: str) -> None:
    with pytest.raises(UserError, match="--set") as error:
        parse_override(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


@given(st.text(max_size=200))
def test_no_override_text_ends_in_anything_but_a_value_or_a_user_error(text: str) -> None:
    try:
        path, _ = parse_override(text)
        assert all(path)
    except UserError as error:
        assert "\n" not in str(error)


@given(st.text(max_size=300))
def test_no_yaml_text_ends_in_anything_but_a_mapping_or_a_user_error(text: str) -> None:
    try:
        assert isinstance(parse_yaml(text, "x"), dict)
    except UserError as error:
        assert "\n" not in str(error)


def test_a_budget_in_examples_replaces_one_in_minutes() -> None:
    values = with_overrides({"train": {"minutes": 5, "seed": 1}}, ["train.examples=100"])
    assert yamltext.plain(values["train"]) == {"minutes": None, "examples": 100, "seed": 1}


def test_later_settings_win_and_siblings_stay() -> None:
    assert merge({"a": {"x": 1, "y": 2}}, {"a": {"x": 3}}) == {"a": {"x": 3, "y": 2}}


def test_a_yaml_bomb_is_refused_by_its_aliases(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match="aliases"):
        read_yaml(tmp_path / "bomb.yaml")


def test_a_deep_yaml_is_refused_in_one_line() -> None:
    with pytest.raises(UserError):
        parse_yaml("[" * 5000, "x")


def test_the_hash_of_a_configuration_ignores_the_order_of_keys() -> None:
    assert config_hash({"a": 1, "b": [1.5, None]}) == config_hash({"b": [1.5, None], "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    assert canonical_json(TrainConfig(examples=5)).startswith('{"batch_size":128')
