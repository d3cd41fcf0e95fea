"""What a job's sections say together."""

import pytest

from core.config import merge
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
    with pytest.raises(UserError, match=r"gate\.\w+: \w+_3 is not measured: measured are evaluate.*: 0.5, 1, 2, 4$"):
        parse_job({**TEXT, "gate": gate}, "words.yaml")
    parse_job({**TEXT, "gate": gate, "evaluate": {"evaluations_per_token": [3]}}, "words.yaml")


def test_a_gate_may_read_any_metric_that_is_measured() -> None:
    for metric in ("bits_per_character_0.5", "bound_bits_per_character", "bits_over_autoregressive"):
        parse_job({**TEXT, "gate": {"metric": metric}}, "words.yaml")


IMAGES = {
    "job": "pictures",
    "description": "images",
    "modality": "images",
    "data": {"source": "digits"},
    "model": {"network": {"channels": [32, 64], "blocks": [1, 1]}},
    "train": {"examples": 8},
    "gate": {"metric": "frechet_distance"},
}


def changed(job: dict[str, object], **sections: object) -> dict[str, object]:
    return merge(job, sections)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"sample": {"labels": [99]}}, "sample.labels: found '99'; allowed: 0, 1, 2"),
        ({"data": {"source": "npz", "data_dir": "a.npz", "class_names": ["cat", "dog"]}, "sample": {"labels": ["cst"]}},
         "sample.labels: found 'cst'; did you mean 'cat'"),
        ({"sample": {"autoguidance": 1.5}}, "sample.autoguidance: found 1.5, which needs train.guide_at"),
        ({"sample": {"count": 1}}, "sample.count: found 1; samples are measured"),
        ({"data": {"resolution": 33}}, "images of 33x33 pixels; this network needs sides divisible by 2.*to 32"),
        ({"model": {"network": {"channels": [32] * 5, "blocks": [1] * 5}}}, "images of 8x8 pixels.*divisible by 16"),
        ({"model": {"network": {"channels": [32, 100]}}}, "100 channels at the lowest level cannot be divided"),
        ({"sample": {"grid": "ddpm", "steps": 1001}}, "model.process.schedule.steps has 1000"),
        ({"model": {"conditional": False}, "sample": {"labels": [3]}}, "the model knows no classes"),
        (
            {"model": {"conditional": False}, "sample": {"sampler": "ddpm", "feedback": 0.1}},
            "sample.feedback: found 0.1; the model knows no classes",
        ),
        ({"sample": {"sampler": "ddpm", "feedback": 0.1, "labels": [-1]}}, "sample.feedback: found 0.1; sample.labels"),
        ({"model": {"conditional": False}, "sample": {"redraw": 0.1}}, "sample.redraw: found 0.1; the model knows no"),
        ({"sample": {"redraw": 0.1, "labels": [-1]}}, "sample.redraw: found 0.1; sample.labels asks for no class"),
        ({"gate": {"require": {"redrawn": 0.1}}}, "redrawn is not measured: sample.redraw is 0"),
        ({"gate": {"metric": "frechet"}}, "gate.metric: found 'frechet'; did you mean 'frechet_distance'"),
        ({"gate": {"require": {"acuracy": 0.9}}}, "gate.require: found 'acuracy'; .*allowed: frechet_distance, "),
        ({"gate": {"require": {"nearest_neighbour": 0.1}}}, "gate.require: nearest_neighbour is best near its floor"),
        ({"gate": {"metric": "class_accuracy"}}, "gate.better: found lower; of class_accuracy higher is better"),
        ({"gate": {"require": {"class_accuracy": 0.9}}, "sample": {"labels": [-1]}}, "sample.labels asks for no class"),
        ({"gate": {"require": {"recall": 0.9}}, "sample": {"count": 3}}, "recall is not measured: it needs more"),
    ],
)  # fmt: skip
def test_what_an_image_job_cannot_do_is_said_before_it_begins(sections: dict[str, object], words: str) -> None:
    parse_job(IMAGES, "job.yaml")
    with pytest.raises(UserError, match=words):
        parse_job(changed(IMAGES, **sections), "job.yaml")


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"train": {"guide_at": 0.1}}, "train.guide_at: only sampling of images"),
        ({"sample": {"prompts": ["a ___ b ___ c"]}}, "more than one ___"),
        ({"sample": {"prompts": ["a ___ b"], "gap": 32}}, "fills gaps of at most 31 tokens"),
        ({"sample": {"block": 256}}, "sample.block: found 256; model.context is 128 tokens"),
        ({"sample": {"modes": ["infill"]}}, "infill alone draws nothing without a prompt"),
        ({"gate": {"metric": "my_own_3"}}, "gate.metric: found 'my_own_3'; allowed: word_validity, "),
    ],
)
def test_what_a_text_job_cannot_do_is_said_before_it_begins(sections: dict[str, object], words: str) -> None:
    job = {**TEXT, "gate": {"metric": "bits_per_character_4"}}
    parse_job(job, "job.yaml")
    with pytest.raises(UserError, match=words):
        parse_job(changed(job, **sections), "job.yaml")


def test_a_sampling_job_is_checked_too() -> None:
    job = {**IMAGES, "kind": "sampling", "source": {"model": "digits@champion"}, "sample": {"labels": [99]}}
    with pytest.raises(UserError, match=r"sample\.labels: found '99'"):
        parse_job({key: job[key] for key in job if key not in ("model", "train", "gate")}, "job.yaml")
