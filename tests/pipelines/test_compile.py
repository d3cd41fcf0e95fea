"""Compiled pipelines: the same bytes every time, checked, the image named after its content."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import UserError
from factory.job import AnyJob, parse_job
from pipelines.checks import check_spec, read_spec, tasks, worker_pools
from pipelines.compile import ROOT, TARGETS, compile_job, compile_to, content_tag, image_name
from pipelines.jobs import job_names, load_job, sections
from pipelines.machines import load_machines
from pipelines.retraining import define_retraining

IMAGE = "registry.example/textdiffusion:1234"
BUDGET = {"examples": 100}
IMAGES = {
    "job": "pictures", "description": "d", "modality": "images", "data": {}, "train": BUDGET,
    "gate": {"metric": "frechet_distance"},
}  # fmt: skip
TEXT = {
    "job": "words", "description": "d", "modality": "text", "data": {}, "train": BUDGET, "autoregressive": BUDGET,
    "gate": {"metric": "bits_per_character_4"},
}  # fmt: skip
SAMPLING = {"kind": "sampling", "description": "d", "source": {"model": "pictures"}, "data": {}}
ALL = [
    IMAGES,
    TEXT,
    {**TEXT, "job": "cold-words", "warm_start": False},
    {**SAMPLING, "job": "draw", "modality": "images"},
    {**SAMPLING, "job": "write", "modality": "text"},
]


def job(values: dict[str, Any], **changes: Any) -> AnyJob:
    return parse_job({**values, **changes}, "test")


def spec_of(values: dict[str, Any], target: Any = "local") -> Any:
    return read_spec(compile_job(job(values), target, image=IMAGE))[0]


def names(spec: Any) -> set[str]:
    return {name for _, name, _ in tasks(spec) if not name.startswith("condition")}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("values", ALL, ids=lambda values: values["job"])
def test_every_kind_of_job_compiles_and_passes_the_checks(values: dict[str, Any], target: Any) -> None:
    text = compile_job(job(values), target, image=IMAGE)
    assert check_spec(text, job(values)) == []


@pytest.mark.parametrize("name", job_names())
def test_predefined_jobs_compile_for_every_target(name: str, tmp_path: Path) -> None:
    assert load_job(name).job == name
    paths = compile_to(load_job(name), tmp_path)
    assert [path.name for path in paths] == [f"{name}.yaml", f"{name}.vertex.yaml"]


def test_compiling_gives_the_same_bytes_in_another_process() -> None:
    program = (
        "import sys; from tests.pipelines.test_compile import *;"
        "texts = [compile_job(job(values), target, image=IMAGE) for values in ALL for target in TARGETS];"
        "sys.stdout.write(''.join(texts))"
    )
    texts = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", program]
        texts.append(subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True).stdout)
    assert texts[0] == texts[1]
    assert len(texts[0]) > 100_000


def test_steps_have_the_documented_names() -> None:
    rest = {"prepare-data", "train-judge", "sample", "evaluate", "gate", "register", "keep"}
    assert names(spec_of(IMAGES)) == rest | {"train"}
    assert names(spec_of(TEXT)) == rest | {"train-diffusion", "train-autoregressive"}
    drawing = {"import-model", "prepare-data", "train-judge", "sample", "evaluate"}
    assert names(spec_of(ALL[3])) == names(spec_of(ALL[4])) == drawing


SEARCH = {"parameters": {"train.learning_rate": {"min": 1e-4, "max": 1e-2}}, "examples": 100, "trials": 2}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("values", [*ALL, {**TEXT, "search": SEARCH}], ids=lambda values: values["job"])
def test_no_step_has_an_optional_artifact(values: dict[str, Any], target: Any) -> None:
    """Vertex AI does not cache a step that has one (kubeflow/pipelines#11410)."""
    for name, component in spec_of(values, target)["components"].items():
        for artifact in component.get("inputDefinitions", {}).get("artifacts", {}).values():
            assert not artifact.get("isOptional"), name


def test_steps_of_text_are_given_both_models_and_steps_of_images_one() -> None:
    def given(values: dict[str, Any]) -> dict[str, bool]:
        steps = {name: task["inputs"].get("artifacts", {}) for _, name, task in tasks(spec_of(values))}
        return {name: "autoregressive" in steps[name] for name in ("sample", "evaluate", "register") if name in steps}

    assert given(IMAGES) == {"sample": False, "evaluate": False, "register": False}
    assert given(TEXT) == {"sample": True, "evaluate": True, "register": True}
    assert given(ALL[3]) == {"sample": False, "evaluate": False}
    assert given(ALL[4]) == {"sample": True, "evaluate": True}


@pytest.mark.parametrize("values", [IMAGES, {**TEXT, "search": SEARCH}], ids=["images", "text with a search"])
def test_retraining_has_the_parameters_of_the_training_but_the_fingerprint(values: dict[str, Any]) -> None:
    spec = read_spec(compile_job(job(values), image=IMAGE, definition=define_retraining))[0]
    training = spec_of(values)["root"]["inputDefinitions"]["parameters"]
    assert set(spec["root"]["inputDefinitions"]["parameters"]) == set(training) - {"data_fingerprint"}
    assert {"check-data", "remember-data"} < names(spec)


def test_warm_start_orders_the_two_trainings_and_without_it_they_are_parallel() -> None:
    def waits_for(values: dict[str, Any]) -> list[str]:
        task = next(task for _, name, task in tasks(spec_of(values)) if name == "train-diffusion")
        return list(task["dependentTasks"])

    assert waits_for(TEXT) == ["prepare-data", "train-autoregressive"]
    assert waits_for(ALL[2]) == ["prepare-data"]


def test_judge_and_model_train_beside_each_other() -> None:
    waits = {name: task.get("dependentTasks", []) for _, name, task in tasks(spec_of(IMAGES))}
    assert waits["train"] == waits["train-judge"] == ["prepare-data"]


def test_gate_register_and_keep_are_never_cached_and_the_rest_is() -> None:
    cached = {
        name: task.get("cachingOptions", {}).get("enableCache", False) for _, name, task in tasks(spec_of(IMAGES))
    }
    assert {name for name, on in cached.items() if on and not name.startswith("condition")} == {
        "prepare-data", "train-judge", "train", "sample", "evaluate",
    }  # fmt: skip


def test_training_is_a_custom_job_on_vertex_and_a_gpu_request_on_kubernetes() -> None:
    values = {**IMAGES, "resources": {"train": "l4", "sample": "cpu", "spot": True}}
    vertex = spec_of(values, "vertex")
    [(step, pool)] = list(worker_pools(vertex))
    assert step == "train"
    assert pool["machine_spec"]["machine_type"] == "g2-standard-8"
    assert pool["machine_spec"]["accelerator_type"] == "NVIDIA_L4"
    assert pool["container_spec"]["image_uri"] == IMAGE
    inputs = vertex["components"]["comp-train"]["inputDefinitions"]["parameters"]
    assert inputs["strategy"]["defaultValue"] == "SPOT"
    assert inputs["restart_job_on_worker_restart"]["defaultValue"] is True
    assert pool["replica_count"] == 1
    several = spec_of({**values, "resources": {**values["resources"], "replicas": 3}}, "vertex")
    pools = [pool for _, pool in worker_pools(several)]
    assert [pool["replica_count"] for pool in pools] == [1, 2]
    assert pools[0]["machine_spec"] == pools[1]["machine_spec"] == pool["machine_spec"]
    text = compile_job(job(values), "local", image=IMAGE)
    spec, platform = read_spec(text)
    accelerator = spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]["accelerator"]
    assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "1")
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["exec-train"]["nodeSelector"]["labels"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert "accelerator" not in spec["deploymentSpec"]["executors"]["exec-sample"]["container"]["resources"]


@pytest.mark.parametrize(("target", "kind"), [("vertex", "NVIDIA_L4"), ("local", "nvidia.com/gpu")])
def test_sampling_and_evaluation_get_all_gpus_of_their_machine(target: Any, kind: str) -> None:
    """Steps start a process for each GPU that they see; see tests/core/processes/test_launch.py."""
    row = {"machine_type": "g2-standard-48", "cpu": 48, "memory_gb": 192,
           "accelerator_type": "NVIDIA_L4", "accelerator_count": 4}  # fmt: skip
    several = job(IMAGES, resources={"sample": "l4-4"})
    spec = read_spec(compile_job(several, target, image=IMAGE, machines=load_machines({"l4-4": row})))[0]
    if target == "vertex":  # custom jobs, each with a time limit
        specs = [pool["machine_spec"] for step, pool in worker_pools(spec) if step in ("sample", "evaluate", "gate")]
        assert [(one["accelerator_type"], one["accelerator_count"]) for one in specs] == [(kind, 4)] * 3
        return
    for step in ("sample", "evaluate", "gate"):
        accelerator = spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]["resources"]["accelerator"]
        assert (accelerator["resourceType"], accelerator["resourceCount"]) == (kind, "4")


def test_parameters_are_the_sections_of_the_job() -> None:
    inputs = spec_of(IMAGES)["root"]["inputDefinitions"]["parameters"]
    for name, value in sections(job(IMAGES)).items():
        assert inputs[name]["defaultValue"] == value


def test_an_unknown_machine_is_refused_with_the_rows_there_are() -> None:
    with pytest.raises(UserError, match=r"resources\.train: found 'tpu'; did you mean 'cpu'\? allowed: cpu, t4"):
        compile_job(job(IMAGES, resources={"train": "tpu"}), image=IMAGE)


def test_the_tag_follows_the_content_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "core" / "inner").mkdir(parents=True)
    (tmp_path / "core" / "inner" / "a.py").write_text("x = 1\n")
    (tmp_path / "pipelines").mkdir()
    inside = ("core", "requirements.lock")
    tag = content_tag(tmp_path, inside)
    (tmp_path / "core" / "__pycache__").mkdir()
    (tmp_path / "core" / "__pycache__" / "a.pyc").write_bytes(b"junk")
    (tmp_path / "pipelines" / "b.py").write_text("y = 1\n")
    os.utime(tmp_path / "core" / "inner" / "a.py", (0, 0))
    assert content_tag(tmp_path, inside) == tag
    (tmp_path / "core" / "inner" / "a.py").write_text("x = 2\n")
    changed = content_tag(tmp_path, inside)
    (tmp_path / "core" / "inner" / "a.py").rename(tmp_path / "core" / "a.py")
    assert len({tag, changed, content_tag(tmp_path, inside)}) == 3


def test_an_image_with_a_tag_is_used_as_it_is() -> None:
    assert image_name("host:5000/repo:v1") == "host:5000/repo:v1"
    assert image_name("host:5000/repo") == f"host:5000/repo:{content_tag()}"


Fault = Callable[[Any], None]


def _lone_if(spec: Any) -> None:
    spec["root"]["dag"]["tasks"]["lonely"] = {
        "triggerPolicy": {"condition": "inputs.parameter_values['x'] == 'yes'"},
        "inputs": {
            "parameters": {"x": {"taskOutputParameter": {"producerTask": "gate", "outputParameterKey": "decision"}}}
        },
    }


def _executor(spec: Any, name: str) -> Any:
    return spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]


def _pool(spec: Any) -> Any:
    return next(pool for _, pool in worker_pools(spec))


def _task(spec: Any, name: str) -> Any:
    return next(task for _, found, task in tasks(spec) if found == name)


FAULTS: list[tuple[str, Fault]] = [
    ("lonely: a lone dsl.If on output 'decision'", _lone_if),
    ("sample: has no image", lambda spec: _executor(spec, "sample").pop("image")),
    ("has no fixed tag", lambda spec: _executor(spec, "sample").update(image="repo/textdiffusion:latest")),
    ("different images", lambda spec: _executor(spec, "sample").update(image="repo/textdiffusion:other")),
    ("does not take NVIDIA_TESLA_T4", lambda spec: _pool(spec)["machine_spec"].update(machine_type="e2-standard-4")),
    ("did you mean NVIDIA_L4", lambda spec: _pool(spec)["machine_spec"].update(accelerator_type="NVIDIA_TESLA_L4")),
    ("gate: is cached", lambda spec: _task(spec, "gate").update(cachingOptions={"enableCache": True})),
    (
        "section model: the pipeline has no such",
        lambda spec: spec["root"]["inputDefinitions"]["parameters"].pop("model"),
    ),
    (
        "its default is not",
        lambda s: s["root"]["inputDefinitions"]["parameters"]["train"]["defaultValue"].update(seed=9),
    ),
]


@pytest.mark.parametrize(("message", "break_it"), FAULTS, ids=[message for message, _ in FAULTS])
def test_a_fault_in_a_compiled_pipeline_is_found(message: str, break_it: Fault) -> None:
    spec = copy.deepcopy(spec_of(IMAGES, "vertex"))
    break_it(spec)
    found = check_spec(yaml.safe_dump(spec), job(IMAGES))
    assert any(message in problem for problem in found), found


def test_an_installation_that_lacks_what_the_image_is_made_of_names_none_to_run(tmp_path: Path) -> None:
    """As an installed wheel: packages alone."""
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "a.py").write_text("x = 1\n")
    (tmp_path / "components").mkdir()
    with pytest.raises(UserError, match=r"image: .* no containers and no requirements.lock.*work in a clone"):
        image_name(root=tmp_path)
    assert image_name("repo:mine", root=tmp_path) == "repo:mine"
    assert image_name(root=tmp_path, to_run=False).startswith("textdiffusion:")  # runs here need a name, and no image


def test_the_time_zones_and_the_patterns_of_credentials_are_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=]", line)[0] for line in project["dependencies"]}
    assert {"tzdata", "detect-secrets"} <= names


def test_a_batch_smaller_than_the_gpus_is_refused_before_anything_is_compiled() -> None:
    job = load_job("digits", ["train.batch_size=4", "resources.train=a100-x8"])
    with pytest.raises(UserError, match=r"train\.batch_size: 4 is less than one example for each of the 8 GPUs"):
        compile_job(job, "vertex")
