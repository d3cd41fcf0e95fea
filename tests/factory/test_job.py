"""What a job's sections say together."""

import pytest

from core.errors import UserError
from factory.job import parse_job

TEXT = {
    "job": "words",
    "description": "a text",
    "modality": "text",
    "data": {"source": "pydoc"},
    "train": {"examples": 8},
    "autoregressive": {"examples": 8},
}


@pytest.mark.parametrize(
    "gate",
    [
        {"metric": "bits_per_character_3"},
        {"metric": "word_validity", "better": "higher", "require": {"bits_over_autoregressive_3": 0.1}},
    ],
)
def test_a_gate_that_reads_bits_which_nobody_measures_is_refused_before_any_training(gate: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"gate: found \w+_3; measured are evaluate.*: 1, 2, 4, 16$"):
        parse_job({**TEXT, "gate": gate}, "words.yaml")
    parse_job({**TEXT, "gate": gate, "evaluate": {"evaluations_per_token": [3]}}, "words.yaml")


def test_a_gate_may_read_any_other_metric() -> None:
    for metric in ("bits_per_character_16", "bound_bits_per_character", "bits_over_autoregressive", "my_own_3"):
        parse_job({**TEXT, "gate": {"metric": metric}}, "words.yaml")
