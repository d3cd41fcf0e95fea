"""A class is meant by its name."""

import pytest

from core.errors import UserError
from core.images.classes import class_indices


@pytest.mark.parametrize(
    ("names", "wanted", "expected"),
    [
        ("0 1 2", [1, "2"], [1, 2]),
        ("1 2 3", [1, "3", -1], [0, 2, -1]),
        ("six seven", ["seven", "six", 1, "-1"], [1, 0, 1, -1]),
        ("3 7up", ["3", "7up"], [0, 1]),
    ],
)
def test_a_class_is_meant_by_its_name_and_by_its_place_where_no_name_is_a_number(
    names: str, wanted: list[int | str], expected: list[int]
) -> None:
    assert class_indices(wanted, names.split(), "sample.labels") == expected


@pytest.mark.parametrize(
    ("names", "wanted", "words"),
    [
        ("1 2 3", 0, "sample.labels: found '0'; allowed: 1, 2, 3, or -1 for none"),
        ("circle square", "sqare", "found 'sqare'; did you mean 'square'? allowed: circle, square"),
        ("circle square", 2, "found '2'; allowed: circle, square"),
        ("circle square", -2, "found '-2'"),
        ("", "circle", "allowed: only -1: the model has no classes"),
        (" ".join(f"n{i}" for i in range(200)), "x", "n11 and 188 more"),
    ],
)
def test_another_one_is_refused_by_the_names_there_are(names: str, wanted: int | str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        class_indices([wanted], names.split(), "sample.labels")
    assert words in str(caught.value)
