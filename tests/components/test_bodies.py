"""Bodies of components, called without a pipeline: lineage on outputs, user errors as one line."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

import core.images
from components.evaluate import evaluate
from components.gate import gate
from components.import_model import import_model
from components.prepare_data import prepare_data
from components.sample import sample
from components.step import describe, variant
from components.train import train
from core import storage
from core.config import config_hash
from factory.lineage import content_hash, restore_ints
from factory.registry import Registry

STAND_IN = Path(__file__).parents[1] / "local" / "standin" / "standin_modality.py"


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("core.images.modality", STAND_IN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "core.images.modality", module)
    monkeypatch.setattr(core.images, "modality", module, raising=False)  # where an earlier test has imported it
    monkeypatch.setenv("TEXTDIFFUSION_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("TEXTDIFFUSION_CODE_VERSION", "abc123")
    monkeypatch.setenv("TEXTDIFFUSION_IMAGE", "repo/image:tag")


def artifact(kind: Any, path: Path, **metadata: Any) -> Any:
    return kind(name=path.name, uri=str(path), metadata=metadata)


def test_an_output_carries_the_hash_of_the_settings_it_was_made_with(tmp_path: Path) -> None:
    dataset = artifact(dsl.Dataset, tmp_path / "dataset")
    prepare_data.python_func("images", {"limit": 200.0}, "print", dataset)
    assert dataset.metadata["config_hash"] == config_hash({"data": {"limit": 200}})
    assert dataset.metadata["data_hash"] == dataset.metadata["content_sha256"]
    assert (dataset.metadata["code_version"], dataset.metadata["image"]) == ("abc123", "repo/image:tag")
    assert dataset.metadata["data_fingerprint"] == "print"
    assert all(isinstance(value, str | int | float | bool) for value in dataset.metadata.values())


@pytest.mark.parametrize(
    ("uri", "shards"),
    [("gs://bucket/run/dataset", "gs://bucket/run/dataset-shards"), ("/runs/dataset", None)],
)
def test_shards_are_put_beside_an_artifact_in_a_bucket_which_a_backend_copies_to_every_step(
    uri: str, shards: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("core.modality.run", lambda request: asked.append(request) or {})
    prepare_data.python_func("images", {}, "", dsl.Dataset(name="dataset", uri=uri))
    assert asked[0].shards == shards


def test_what_holds_for_an_input_is_stated_on_the_output(tmp_path: Path) -> None:
    dataset = artifact(dsl.Dataset, tmp_path / "dataset", data_hash="d" * 64)
    model, samples = artifact(dsl.Model, tmp_path / "model"), artifact(dsl.Artifact, tmp_path / "samples")
    train.python_func("images", {}, {"learning_rate": 0.5, "seed": 3}, "", dataset, model)
    sample.python_func("images", {"steps": 4, "seed": 0}, model, samples)
    assert samples.metadata["data_hash"] == "d" * 64
    assert samples.metadata["examples_seen"] == 512
    assert json.loads(samples.metadata["parents"])["model"]["hash"] == model.metadata["weights_sha256"]


def test_a_user_error_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        prepare_data.python_func("images", {"limit": 13}, "", artifact(dsl.Dataset, tmp_path / "dataset"))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: data.limit: found 13; allowed: lucky numbers\n"


def test_a_modality_that_is_none_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        prepare_data.python_func("sound", {}, "", artifact(dsl.Dataset, tmp_path / "dataset"))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: modality: found 'sound'; allowed: images, text\n"


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    model = artifact(dsl.Model, tmp_path / "model")
    with pytest.raises(RuntimeError, match="a bug in sampling"):
        sample.python_func("images", {"steps": 4, "seed": 666}, model, artifact(dsl.Artifact, tmp_path / "samples"))


def test_evaluation_shows_its_metrics_with_their_floors(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "dataset" / "dataset.json", {"content_sha256": "x"})
    storage.write_json(tmp_path / "samples" / "sample.json", {"quality": 0.5, "steps": 4})
    inputs = [artifact(dsl.Artifact, tmp_path / name) for name in ("dataset", "judge", "model", "samples")]
    metrics, classification = artifact(dsl.Metrics, tmp_path / "m"), artifact(dsl.ClassificationMetrics, tmp_path / "c")
    report = artifact(dsl.HTML, tmp_path / "report")
    evaluation = artifact(dsl.Artifact, tmp_path / "evaluation")
    evaluate.python_func(
        "images", {"judge_seed": 0}, *inputs, evaluation, metrics, report, classification=classification
    )
    assert metrics.metadata == {"frechet_distance": 2.25, "frechet_distance (floor)": 0.1}
    assert Path(report.path).read_text().lstrip().lower().startswith("<!doctype html>")


def test_the_gate_refuses_an_evaluation_that_its_step_did_not_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("dataset", "judge", "model", "evaluation")
    inputs = [artifact(dsl.Artifact, tmp_path / name) for name in names]
    for made, content in zip(inputs, ({}, {}, {"weights_sha256": "w"}, {"d": {"value": 91.8}}), strict=True):
        name = "model" if made.name == "model" else "metrics"
        storage.write_json(Path(made.path) / f"{name}.json", content)
        storage.write_json(Path(made.path) / "evaluation.json", {})
        describe(made, {}, {})

    def judged(verdict: str) -> str:
        given = ({"metric": "d", "better": "lower"}, {}, {}, str(tmp_path / "registry"), "digits")
        return str(gate.python_func("images", *given, *inputs, artifact(dsl.Artifact, tmp_path / verdict)))

    assert judged("first") == "promote"
    storage.write_json(tmp_path / "evaluation" / "metrics.json", {"d": {"value": 11.8}})
    with pytest.raises(SystemExit) as ended:
        judged("second")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: evaluation: the files in ")
    assert said.count("\n") == 1
    assert not (tmp_path / "second").exists()


def test_a_registered_model_is_imported_where_it_is(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "made" / "model.json", {"weights_sha256": "w"})
    registry = Registry(tmp_path / "registry")
    made = registry.register(
        "digits", {"model": tmp_path / "made"}, metrics={}, evaluation_key="", weights_sha256="w", lineage={"seed": 4}
    )
    registry.promote("digits", made.version, "first")
    model = artifact(dsl.Model, tmp_path / "model")
    import_model.python_func(registry.root, {"model": "digits"}, model)
    assert model.uri == f"{made.uri}/model"
    assert (model.metadata["version"], model.metadata["seed"]) == (1, 4)


def test_a_damaged_model_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage.write_json(tmp_path / "made" / "model.json", {"weights_sha256": "0" * 64})
    storage.write_bytes(tmp_path / "made" / "weights.safetensors", b"other")
    with pytest.raises(SystemExit):
        import_model.python_func("", {"model": str(tmp_path / "made")}, artifact(dsl.Model, tmp_path / "model"))
    assert "weights.safetensors is damaged" in capsys.readouterr().err


def test_a_variant_has_the_optional_artifacts_that_it_is_given_and_none_that_is_still_optional() -> None:
    images, text = variant(evaluate, ["classification"]), variant(evaluate, ["autoregressive"])
    assert "autoregressive" not in images.component_spec.inputs
    assert "classification" in images.component_spec.outputs
    assert not text.component_spec.inputs["autoregressive"].optional
    assert "classification" not in text.component_spec.outputs
    assert evaluate.component_spec.inputs["autoregressive"].optional  # as it was
    assert images.name == text.name == "evaluate"


def test_doubles_become_integers_again_at_any_depth() -> None:
    assert restore_ints({"a": 16.0, "b": [1.0, 2.5, {"c": 0.0}], "d": True}) == {
        "a": 16,
        "b": [1, 2.5, {"c": 0}],
        "d": True,
    }


def test_nested_metadata_becomes_text_and_null_is_left_out() -> None:
    output = dsl.Artifact(name="x", uri="x")
    describe(output, {"counts": {"train": 1}, "nothing": None, "weights_sha256": "w"}, {})
    assert output.metadata["counts"] == '{"train":1}'
    assert "nothing" not in output.metadata
    assert content_hash(output.metadata) == "w"


def test_artifact_is_pointed_elsewhere_only_where_a_bucket_is_mounted() -> None:
    from components.publish import is_mounted

    assert is_mounted("/gcs/bucket/artifact", {})
    assert not is_mounted("/gcs/bucket/artifact", {"KFP_POD_NAME": "pod"}), "KFP's launcher uploads what lies there"
    assert not is_mounted("/minio/bucket/artifact", {})
