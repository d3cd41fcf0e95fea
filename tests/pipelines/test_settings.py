"""Layers of settings: command line > environment > textdiffusion.yaml > job."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from pipelines.jobs import absolute, fingerprint, load_job, parameters, sections
from pipelines.settings import load_settings

JOB = """
job: tiny
description: A test
modality: images
data: {source: digits}
train: {examples: 512, batch_size: 32}
gate: {metric: frechet_distance}
"""


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(JOB)
    return tmp_path / "tiny.yaml"


def test_each_layer_beats_the_one_below_it(tmp_path: Path, job_file: Path) -> None:
    file = tmp_path / "textdiffusion.yaml"
    file.write_text(
        "region: from-file\nbucket: from-file\nproject: from-file\nset: {train: {batch_size: 2, seed: 2}}\n"
    )
    environment = {
        "TEXTDIFFUSION_REGION": "from-env",
        "TEXTDIFFUSION_BUCKET": "from-env",
        "TEXTDIFFUSION_TRAIN__SEED": "3",
    }
    settings = load_settings({"bucket": "from-line", "region": None}, file=file, environment=environment)
    assert (settings.project, settings.region, settings.bucket) == ("from-file", "from-env", "from-line")
    job = load_job(str(job_file), ["train.learning_rate=1e-4"], [settings.set])
    assert (job.train.batch_size, job.train.seed, job.train.learning_rate) == (2, 3, 1e-4)  # type: ignore[union-attr]
    assert load_job(str(job_file)).train.batch_size == 32  # type: ignore[union-attr]


def test_a_missing_setting_says_the_line_to_write(tmp_path: Path) -> None:
    settings = load_settings(file=tmp_path / "none.yaml", environment={})
    with pytest.raises(
        UserError,
        match=r"project is not set: write `project: \.\.\.` into textdiffusion\.yaml, or set TEXTDIFFUSION_PROJECT$",
    ):
        settings.require("project")


def test_unknown_keys_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "textdiffusion.yaml"
    file.write_text("projct: x\n")
    with pytest.raises(UserError, match=r"projct: .*allowed: .*project"):
        load_settings(file=file, environment={})


def test_settings_for_a_section_that_a_job_lacks_are_passed_over(job_file: Path) -> None:
    layer = {"autoregressive": {"batch_size": 4}, "resources": {"train": "l4"}}
    assert load_job(str(job_file), (), [layer]).resources.train == "l4"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_size=0", "train.batch_size"),
        ("train.batch=4", "allowed: batch_size"),
        ("nonsense", "expected section.key=value"),
        ("data.data_dir=[1]", "data.data_dir"),
        ("train.seed=9007199254740993", "above 2^53"),
    ],
)
def test_a_bad_override_is_one_line_that_names_the_key(job_file: Path, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_job(str(job_file), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_fingerprint_follows_names_sizes_and_times(job_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a").write_bytes(b"1234")
    job = absolute(load_job(str(job_file), ["data.source=npz", "data.data_dir=data"]), tmp_path)
    assert job.data.data_dir == str(data)
    first = fingerprint(job)
    assert fingerprint(job) == first
    (data / "a").rename(data / "b")
    assert fingerprint(job) != first
    (data / "b").unlink()
    with pytest.raises(UserError, match=r"data\.data_dir: no files"):
        fingerprint(job)
    assert fingerprint(load_job(str(job_file))) == "embedded"


def test_parameters_hold_no_null_and_come_back_as_the_same_sections(job_file: Path) -> None:
    job = load_job(str(job_file))
    values = parameters(job, registry="r", run="x")

    def nulls(value: object) -> bool:
        if isinstance(value, dict):
            return any(nulls(item) for item in value.values())
        return value is None

    assert not nulls(values)
    again = type(job).model_validate({**job.model_dump(), **sections(job)})
    assert again == job


@pytest.mark.parametrize("section", ["train", "autoregressive"])
def test_one_budget_replaces_the_other(section: str) -> None:
    job = load_job("pydoc", [f"{section}.examples=100"])
    assert (getattr(job, section).examples, getattr(job, section).minutes) == (100, None)
